"""Double Rounding: one stored network, several bit widths.

Paper: Huang et al., "Nearly Lossless Adaptive Bit Switching", 2025 (arXiv 2502.01199).
Idea: train a network whose 8-bit integer weights give the 6-, 4-, 3- or 2-bit ones by rounding again, so that only
the highest integers are stored; every width has its own activation steps and batch norm.
Equations: W_h = clip(rne(W/s)); W_l = clip((W_h + 2^(D-1)) >> D), D = h - l, with scale s 2^D. Every batch trains the
widths one after another, each with its own update. ALRS: the rate of the quantizers' steps at b bits is eta_b (lambda -
mean_i min(max|g_i|, 1)), eta_b = 10^(-D/2) for even D, 5 * 10^(-(D+1)/2) for odd.
Differences: symmetric codes, one scale per output channel; the ALRS bracket is negative wherever gradients exceed
lambda, so the gradient term is relative to lambda (lambda / (1 + mean)) and stays positive; SGD instead of Adam; first
and last layer stay at 8 bits instead of float; weights take the rate divided by the number of widths; norm
statistics of each width are measured anew at the end (`settle`); HASB and the search over mixed widths are left out.
Cost: as many forward and backward passes per batch as there are widths. Limits: 2 bits pay for sharing.
"""

from __future__ import annotations

import copy
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from netsuke.core.errors import Problem, UsageError
from netsuke.core.method import Method, register
from netsuke.methods.qat._rules import Rules
from netsuke.nn.quantizer_spec import QuantSpec

if TYPE_CHECKING:
    from torch import Tensor

    from netsuke.methods.qat._network import QatNetwork
    from netsuke.methods.qat._training import Loss


@dataclass(frozen=True)
class DoubleRounding:
    """init: first range by "mse", "maxabs" or "lsq"; alrs: the paper's rates for the quantizers' steps."""

    init: str = "maxabs"
    alrs: bool = True

    def __post_init__(self) -> None:
        if self.init not in ("mse", "maxabs", "lsq"):
            raise UsageError(Problem("init", "qat/double_rounding", self.init, "mse, maxabs, lsq"))


def apply(config: DoubleRounding = DoubleRounding()) -> Rules:
    """Learned steps; weights with views. Prepare with the highest width, then attach `Views`."""
    from netsuke.nn import quantizer_double

    def weight(bits: int) -> QuantSpec:
        return QuantSpec(
            role="weight",
            bits=bits,
            signed=True,
            granularity="channel",
            statistic=config.init,
            schedule="learned",
            gradient="lsq",
        )

    def activation(bits: int, nonnegative: bool) -> QuantSpec:
        return QuantSpec(bits=bits, affine=not nonnegative, statistic="mse", schedule="learned", gradient="lsq")

    return Rules(weight, activation, quantizer=quantizer_double.DoubleRounding)


class Views:
    """The widths of one network. `switch(bits)` makes it that width; `step` trains all of them on a batch.

    bits  widths, the first is the stored one. Layers prepared with that width switch; others (first and last) stay.
    """

    def __init__(self, network: QatNetwork, bits: tuple[int, ...], config: DoubleRounding = DoubleRounding()) -> None:
        from torch import nn

        self.network, self.bits, self.config = network, bits, config
        high = bits[0] if bits else 0
        if len(bits) < 2 or any(not 2 <= b <= high for b in bits) or len(set(bits)) < len(bits):
            raise UsageError(Problem("widths", got=str(bits), allowed="two or more, the stored one first and largest"))
        edge = network.edges
        self.layers = {n: m for n, m in network.layers().items() if m.weight.spec.bits == high and n not in edge}
        if not self.layers:
            raise UsageError(Problem("no layer has the stored width", got=f"{high} bits", hint="weight_bits=8"))
        self.codes = self._switched()
        banks: dict[str, nn.ModuleDict] = {}
        for b in bits:
            bank = nn.ModuleDict({_key(n): copy.deepcopy(q) for n, q in self.codes.items()})
            for name, quantizer in self.codes.items():
                bank[_key(name)] = _narrow(quantizer, b)
            for name, layer in self.layers.items():
                if layer.norm is not None:
                    bank[_key(name) + "_norm"] = copy.deepcopy(layer.norm)
            banks[str(b)] = bank
        network.banks = nn.ModuleDict(banks)
        self.switch(high)

    def _switched(self) -> dict[str, Any]:
        """Activation quantizers that switched layers read or that nothing but adds and means read."""
        fixed = {id(m.source) for n, m in self.network.layers().items() if n not in self.layers}
        found = self.network.activation_quantizers()
        return {n: q for n, q in found.items() if id(q) not in fixed and n.startswith("codes_")}

    def switch(self, bits: int) -> None:
        """Make the network the view of that width."""
        if bits not in self.bits:
            raise UsageError(Problem("no such view", got=str(bits), allowed=", ".join(map(str, self.bits))))
        bank: Any = self.network.banks[str(bits)]
        change = {}
        for name in self.codes:
            current = self.network.net.get_submodule(name)
            change[id(current)] = bank[_key(name)]
            setattr(self.network.net, name, bank[_key(name)])
        for name, layer in self.layers.items():
            layer.weight.view = bits  # type: ignore[assignment]
            if layer.norm is not None:
                layer.norm = bank[_key(name) + "_norm"]
        for module in self.network.net.modules():
            if hasattr(module, "_links"):
                module._links = _relinked(module._links, change)
        self.active = bits

    def calibrate(self, x: Tensor) -> None:
        """First ranges of every width's activations; the weights have theirs."""
        for b in reversed(self.bits):
            self.switch(b)
            self.network.calibrate(x)

    def settle(self, x: Tensor, batch: int = 128) -> None:
        """Measure every width's normalization statistics anew on x, when training is over.

        Moving averages of a width lag behind weights that every other width moves too, five times a batch.
        """
        import torch
        from torch import nn

        active = self.active
        for b in self.bits:
            self.switch(b)
            self.network.train()
            norms = [m.norm for m in self.layers.values() if isinstance(m.norm, (nn.BatchNorm1d, nn.BatchNorm2d))]
            kept = [norm.momentum for norm in norms]
            for norm in norms:
                norm.reset_running_stats()
                norm.momentum = None  # torch's name for the mean over all batches
            with torch.no_grad():
                for part in x.split(batch):
                    self.network(part)
            for norm, momentum in zip(norms, kept, strict=True):
                norm.momentum = momentum
        self.switch(active)
        self.network.eval()

    def share(self) -> float:
        """ALRS: the share of their rate that the active width's quantizer steps take, from this batch's gradients."""
        import torch

        distance = self.bits[0] - self.active
        eta: float = 10.0 ** (-distance / 2) if distance % 2 == 0 else 5 * 10.0 ** (-(distance + 1) / 2)
        if not self.config.alrs:
            return 1.0
        found = [q.scale.grad for q in self.network.quantizers().values() if q.scale.grad is not None]
        if not found:
            return eta
        mean = float(torch.stack([g.abs().max().clamp(max=1.0) for g in found]).mean())
        return eta / (1 + mean)

    def step(self, network: QatNetwork, x: Tensor, y: Tensor, loss: Loss, optimizer: Any) -> float:
        """Every width in turn: forward, backward, its own update. The mean loss.

        Weights, which all widths move, take a share of the rate each time: a batch moves them as far as one update.
        ALRS scales gradients, not rates: a step of the weights is shared by all widths, so is its momentum, and a
        2-bit gradient (64 times an 8-bit one) that waits there would be applied at the 8-bit rate next.
        """
        total = 0.0
        steps = [p for g in optimizer.param_groups if g.get("name") == "scales" for p in g["params"]]
        weights = [g for g in optimizer.param_groups if g.get("name") == "weights"]
        rates = [g["lr"] for g in weights]
        for group in weights:
            group["lr"] /= len(self.bits)
        for b in self.bits:
            self.switch(b)
            value = loss(network(x), x, y)
            optimizer.zero_grad(set_to_none=True)
            value.backward()
            share = self.share()
            for p in steps:
                if p.grad is not None:
                    p.grad.mul_(share)
            optimizer.step()
            total += float(value.detach())
        for group, rate in zip(weights, rates, strict=True):
            group["lr"] = rate
        return total / len(self.bits)


def _key(name: str) -> str:
    return name.replace(".", "/")


def _narrow(quantizer: Any, bits: int) -> Any:
    """The same rule with other bits, and the same range."""
    from dataclasses import replace

    from netsuke.nn.quantizer import Quantizer

    made = Quantizer(replace(quantizer.spec, bits=bits))
    if bool(quantizer.ready):
        made.set_range(quantizer.low, quantizer.high)
    return made


def _relinked(links: Any, change: dict[int, Any]) -> Any:
    if isinstance(links, tuple):
        return tuple(_relinked(item, change) for item in links)
    return change.get(id(links), links)


METHOD = register(
    Method(
        name="qat/double_rounding",
        purpose="train one network whose stored 8-bit weights give every lower width by shifting",
        paper="double-rounding",
        config=DoubleRounding,
        apply=apply,
        needs=("data", "gradients", "training"),
        touches=("weights", "activations"),
        exports=("qconv", "qlinear", "qadd", "qmul", "qavgpool", "qmean", "lut"),
        cost="a training run with one pass per width and batch",
        tags=("rules",),
    )
)
