"""Double Rounding: one stored network, several bit widths.

Paper: Huang et al., "Nearly Lossless Adaptive Bit Switching", 2025 (arXiv 2502.01199).
Idea: train a network whose 8-bit integer weights give the 6-, 4-, 3- or 2-bit ones by rounding again, so that only
the highest integers are stored; every width has its own activation steps and batch norm.
Equations: W_h = clip(rne(W/s)); W_l = clip((W_h + 2^(D-1)) >> D), D = h - l, with scale s 2^D. Every batch trains the
widths one after another, each with its own update. ALRS: the rate of the quantizers' steps at b bits is eta_b (lambda -
mean_i min(max|g_i|, 1)), eta_b = 10^(-D/2) for even D, 5 * 10^(-(D+1)/2) for odd. HASB (`hasb_steps`): mixes of widths,
drawn by the traces of the Hessian, train between the highest and the lowest width (`_hasb`).
Differences: symmetric codes, one scale per output channel; the ALRS bracket is negative wherever gradients exceed
lambda, so the gradient term is relative to lambda (lambda / (1 + mean)) and stays positive; SGD instead of Adam; first
and last layer stay at 8 bits instead of float; weights take the rate divided by the number of passes; norm
statistics of each width are measured anew at the end (`settle`, `settle_mix`); a layer in a mix has the norm of its own
width (the paper: one for each pair of neighbouring widths); mixes are chosen by HAWQ's harm (`_hasb.choose`).
Cost: as many forward and backward passes per batch as there are widths, three with HASB. Limits: 2 bits pay for
sharing.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any, Protocol

from netsuke.core.errors import Problem, UsageError, near
from netsuke.core.method import Method, register
from netsuke.methods.qat._rules import Rules
from netsuke.nn.quantizer_spec import QuantSpec

if TYPE_CHECKING:
    from torch import Tensor

    from netsuke.methods.qat._network import QatNetwork
    from netsuke.methods.qat._training import Loss


@dataclass(frozen=True)
class DoubleRounding:
    """init        first range by "mse", "maxabs" or "lsq"
    alrs        the paper's rates for the quantizers' steps
    hasb_steps  batches over which mixes of widths grow from none to all layers; 0: whole networks of one width only
    """

    init: str = "maxabs"
    alrs: bool = True
    hasb_steps: int = 0

    def __post_init__(self) -> None:
        problems = []
        if self.init not in ("mse", "maxabs", "lsq"):
            problems.append(Problem("init", "qat/double_rounding", self.init, "mse, maxabs, lsq"))
        if self.hasb_steps < 0:
            problems.append(Problem("hasb_steps", "qat/double_rounding", str(self.hasb_steps), "0 or more"))
        if problems:
            raise UsageError(problems)


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


class Mixes(Protocol):
    """What draws a width for every switching layer, batch by batch."""

    def draw(self) -> dict[str, int]: ...


class Views:
    """The widths of one network. `switch(bits)` makes it that width, `mix` gives every layer its own; `step` trains.

    bits  widths, the first is the stored one. Layers prepared with that width switch; others (first and last) stay.
    hasb  draws mixes for `step`; set it before training (`_hasb.Hasb`) where the config has `hasb_steps`
    """

    hasb: Mixes | None = None

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
        self.readers = {n: [x for x, m in self.layers.items() if m.source is q] for n, q in self.codes.items()}
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
        self._set(dict.fromkeys(self.layers, bits), dict.fromkeys(self.codes, bits))
        self.active: float = bits

    def mix(self, widths: Mapping[str, int]) -> None:
        """Every switching layer its own width; a tensor has the largest of the layers that read it."""
        problems = [Problem("no such layer", n, allowed=near(n, self.layers)) for n in widths if n not in self.layers]
        problems += [Problem("no width", n, hint="a mix names every layer") for n in self.layers if n not in widths]
        problems += [
            Problem("no such view", n, str(b), ", ".join(map(str, self.bits)))
            for n, b in widths.items()
            if b not in self.bits
        ]
        if problems:
            raise UsageError(problems)
        codes = {n: max((widths[x] for x in read), default=self.bits[0]) for n, read in self.readers.items()}
        self._set(widths, codes)
        self.active = sum(widths.values()) / len(widths)

    def _set(self, widths: Mapping[str, int], codes: Mapping[str, int]) -> None:
        banks: Any = self.network.banks
        change = {}
        for name, bits in codes.items():
            current = self.network.net.get_submodule(name)
            change[id(current)] = banks[str(bits)][_key(name)]
            setattr(self.network.net, name, banks[str(bits)][_key(name)])
        for name, layer in self.layers.items():
            layer.weight.view = widths[name]  # type: ignore[assignment]
            if layer.norm is not None:
                layer.norm = banks[str(widths[name])][_key(name) + "_norm"]
        for module in self.network.net.modules():
            if hasattr(module, "_links"):
                module._links = _relinked(module._links, change)

    def calibrate(self, x: Tensor) -> None:
        """First ranges of every width's activations; the weights have theirs."""
        for b in reversed(self.bits):
            self.switch(b)
            self.network.calibrate(x)

    def settle(self, x: Tensor, batch: int = 128) -> None:
        """Measure every width's normalization statistics anew on x, when training is over.

        Moving averages of a width lag behind weights that every other width moves too, five times a batch.
        """
        for b in self.bits:
            self.switch(b)
            self._measure_norms(x, batch)
        self.switch(self.bits[0])
        self.network.eval()

    def settle_mix(self, widths: Mapping[str, int], x: Tensor, batch: int = 128) -> None:
        """Make the network this mix, with norms of its own that hold its statistics on x; other views keep theirs."""
        self.mix(widths)
        for layer in self.layers.values():
            if layer.norm is not None:
                layer.norm = copy.deepcopy(layer.norm)
        self._measure_norms(x, batch)
        self.network.eval()

    def _measure_norms(self, x: Tensor, batch: int) -> None:
        import torch
        from torch import nn

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

    def share(self) -> float:
        """ALRS: the share of their rate that the active width's quantizer steps take, from this batch's gradients.

        A mix takes the rate of its mean width, with the exponent of even distances.
        """
        import torch

        distance = self.bits[0] - self.active
        eta: float = 5 * 10.0 ** (-(distance + 1) / 2) if distance % 2 == 1 else 10.0 ** (-distance / 2)
        if not self.config.alrs:
            return 1.0
        found = [q.scale.grad for q in self.network.quantizers().values() if q.scale.grad is not None]
        if not found:
            return eta
        mean = float(torch.stack([g.abs().max().clamp(max=1.0) for g in found]).mean())
        return eta / (1 + mean)

    def step(self, network: QatNetwork, x: Tensor, y: Tensor, loss: Loss, optimizer: Any) -> float:
        """Every width in turn, or with HASB the highest, a mix and the lowest: forward, backward, its own update. The
        mean loss.

        Weights, which all widths move, take a share of the rate each time: a batch moves them as far as one update.
        ALRS scales gradients, not rates: a step of the weights is shared by all widths, so is its momentum, and a
        2-bit gradient (64 times an 8-bit one) that waits there would be applied at the 8-bit rate next.
        """
        total = 0.0
        steps = [p for g in optimizer.param_groups if g.get("name") == "scales" for p in g["params"]]
        weights = [g for g in optimizer.param_groups if g.get("name") == "weights"]
        rates = [g["lr"] for g in weights]
        turns = self._turns()
        for group in weights:
            group["lr"] /= len(turns)
        for turn in turns:
            turn()
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
        return total / len(turns)

    def _turns(self) -> list[Callable[[], None]]:
        """What the passes of a batch make of the network."""
        if not self.config.hasb_steps:
            return [partial(self.switch, b) for b in self.bits]
        if self.hasb is None:
            hint = "views.hasb = Hasb(views, traces(network, x, y), ...)"
            raise UsageError(Problem("hasb_steps without traces", "qat/double_rounding", hint=hint))
        return [
            partial(self.switch, self.bits[0]),
            partial(self.mix, self.hasb.draw()),
            partial(self.switch, self.bits[-1]),
        ]


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
