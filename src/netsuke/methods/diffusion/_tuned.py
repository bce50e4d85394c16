"""Quantized denoisers of a sampling run: one network for all steps, or one per step on the same integer weights."""

from __future__ import annotations

import copy
import fnmatch
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Protocol

import torch
from torch import Tensor, nn

from netsuke.core.errors import Problem, UsageError, near
from netsuke.methods.diffusion._sampling import Sampling, Seen, finite, together, trajectory
from netsuke.methods.qat import QatNetwork, prepare
from netsuke.nn.diffusion import Denoiser, by_step, sample
from netsuke.nn.qlayers import QuantLayer

if TYPE_CHECKING:
    import onnx_ir as ir


@dataclass
class Tuned:
    """networks  one for all steps, or one per step; they share weights, weight quantizers and norms
    facts     what the method did, in numbers
    losses    mean loss of every round of training, by stage
    """

    networks: list[QatNetwork]
    sampling: Sampling
    facts: dict[str, float] = field(default_factory=dict)
    losses: dict[str, list[float]] = field(default_factory=dict)

    def at(self, step: int) -> QatNetwork:
        """The network that runs this step."""
        return self.networks[step if len(self.networks) > 1 else 0]

    def denoiser(self) -> Denoiser:
        """All steps as one function of (image, time, label), in eval mode: the codes that programs compute."""
        for network in self.networks:
            network.eval()
        return self.networks[0] if len(self.networks) == 1 else by_step(self.networks)

    @torch.no_grad()
    def images(self, noise: Tensor, labels: Tensor) -> Tensor:
        """Samples from noise, in the sampling's number of steps."""
        made: Tensor = sample(self.denoiser(), noise, labels, self.sampling.steps)
        return made

    def layers(self) -> dict[str, QuantLayer]:
        """Quantized layers by name. Their codes are those of every step."""
        return self.networks[0].layers()

    def codes(self) -> dict[str, Tensor]:
        """Integer weights by layer."""
        return {name: layer.serve().codes for name, layer in self.layers().items()}

    def exports(self) -> Iterator[ir.Model]:
        """The canonical graph with quantizers of each network; `compile_program` takes it. Every file holds its own
        copy of the weights."""
        for network in self.networks:
            yield network.eval().export()


def quantized(
    model: nn.Module,
    sampling: Sampling,
    *,
    weight_bits: int,
    activation_bits: int,
    per_step: bool,
    seen: list[Seen] | None = None,
    bits: dict[str, tuple[int, int]] | None = None,
) -> Tuned:
    """The network post-training quantized: least-squares ranges of weights and of the float run's activations.

    First convolution, first and last layer take 8 bits. per_step: activation scales belong to a step. bits: of weights
    and input of a layer, over everything else.
    """
    seen = seen or trajectory(model, sampling)
    first = next((name for name, m in model.named_modules() if isinstance(m, nn.Conv2d)), None)
    network = prepare(
        model,
        shape=sampling.shapes,
        dtype=sampling.dtypes,
        weight_bits=weight_bits,
        activation_bits=activation_bits,
        bits={**({} if first is None else {first: (8, 8)}), **(bits or {})},
        calib=together(seen).inputs,
    )
    networks = [network]
    if per_step:
        networks += [_sharing(network) for _ in seen[1:]]
        for one, step in zip(networks, seen, strict=True):
            one.calibrate(step.inputs)
    tuned = Tuned([one.train() for one in networks], sampling)
    hold_norms(tuned)
    return tuned


class Widths(Protocol):
    """What the configs of methods that train the quantized network have in common."""

    @property
    def weight_bits(self) -> int: ...

    @property
    def activation_bits(self) -> int: ...

    @property
    def per_step(self) -> bool: ...


def start(model: nn.Module, sampling: Sampling, config: Widths) -> tuple[Tuned, list[Seen], dict[str, Tensor]]:
    """The untrained network, the float network's run, its integer weights; the output error becomes a fact."""
    seen = trajectory(model, sampling)
    tuned = quantized(
        model,
        sampling,
        weight_bits=config.weight_bits,
        activation_bits=config.activation_bits,
        per_step=config.per_step,
        seen=seen,
    )
    tuned.facts["error_untuned"] = output_error(tuned, seen)
    return tuned, seen, tuned.codes()


# network of the step, what the float network saw and gave -> loss, and the error that is reported
Loss = Callable[[QatNetwork, Seen], tuple[Tensor, Tensor]]


def train_on_runs(
    model: nn.Module,
    tuned: Tuned,
    optimizer: torch.optim.Optimizer,
    loss: Loss,
    *,
    rounds: int,
    batch: int,
    first: int = 0,
    where: str = "",
) -> list[float]:
    """One update per sampling step on `rounds` fresh runs of the float network, rates falling linearly to zero.

    first  runs already used: their noise is not drawn again. Returns the mean reported error of every round.
    """
    total = max(1, rounds * tuned.sampling.steps)
    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda n: 1 - n / total)
    hold_norms(tuned)
    losses = []
    for round_ in range(rounds):
        found = 0.0
        for step, seen in enumerate(trajectory(model, tuned.sampling, count=batch, round_=first + round_ + 1)):
            value, error = loss(tuned.at(step), seen)
            optimizer.zero_grad()
            value.backward()
            optimizer.step()
            schedule.step()
            found += finite(error, where)
        losses.append(found / tuned.sampling.steps)
    return losses


def _sharing(network: QatNetwork) -> QatNetwork:
    """A copy with activation quantizers of its own and the same layers, norms and weight quantizers."""
    shared: dict[int, Any] = {}
    for layer in network.layers().values():
        for part in (layer.layer, layer.weight, layer.norm):
            if part is not None:
                shared[id(part)] = part
    return copy.deepcopy(network, shared)


def hold_norms(tuned: Tuned) -> None:
    """Training mode with batch norm on its stored statistics: a sampling run is no sample of the data."""
    for network in tuned.networks:
        network.train()
        network.freeze_norms()


def matching(names: list[str], wanted: list[str], where: str) -> list[str]:
    """Names that one of the patterns matches; UsageError when none of them matches anything."""
    found = [n for n in names if any(fnmatch.fnmatchcase(n, p) for p in wanted)]
    if wanted and not found:
        raise UsageError(Problem("no layer matches", where, " + ".join(wanted), near(wanted[0], names)))
    return found


def scale_groups(tuned: Tuned, rate: float, of: list[str] | None = None) -> list[dict[str, Any]]:
    """Optimizer groups of activation scales and zero points; a scale moves by a share of itself, a zero point by codes.

    of  names of layers: only quantizers these read; None: all
    """
    groups: list[dict[str, Any]] = []
    taken: set[int] = set()
    for network in tuned.networks:
        sources = {id(layer.source) for name, layer in network.layers().items() if of is None or name in of}
        for quantizer in network.activation_quantizers().values():
            if of is not None and id(quantizer) not in sources:
                continue
            for name, p in quantizer.named_parameters():
                if id(p) not in taken and name in ("scale", "zero"):
                    taken.add(id(p))
                    unit = float(p.detach().abs().mean()) if name == "scale" else 1.0
                    groups.append({"params": [p], "lr": rate * unit})
    return groups


def only(tuned: Tuned, names: list[str]) -> list[nn.Parameter]:
    """Freeze every parameter but weights and biases of these layers, which are returned."""
    for network in tuned.networks:
        for p in network.parameters():
            p.requires_grad_(False)
    chosen = [p for name in names for p in tuned.layers()[name].layer.parameters()]
    for p in chosen:
        p.requires_grad_(True)
    return chosen


def changed(before: dict[str, Tensor], after: dict[str, Tensor]) -> float:
    """Share of integer weights that differ."""
    different = sum(int((before[k] != after[k]).sum()) for k in before)
    return different / sum(t.numel() for t in before.values())


def output_error(tuned: Tuned, seen: list[Seen]) -> float:
    """Mean squared error of v on the float network's run, in eval mode."""
    with torch.no_grad():
        errors = [((tuned.at(i).eval()(*s.inputs) - s.v) ** 2).mean() for i, s in enumerate(seen)]
    return float(torch.stack(errors).mean())
