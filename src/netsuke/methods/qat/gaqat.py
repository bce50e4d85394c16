"""GAQAT: sharpness-aware training whose quantizer steps listen to one gradient at a time.

Paper: "GAQAT: gradient-adaptive quantization-aware training for domain generalization", 2024 (arXiv 2412.05551).
Idea: two gradients reach every quantizer step: of the task (at the weights) and of smoothness (at weights perturbed
uphill). At 3 and 4 bits they often pull against each other. A step whose task gradient keeps one sign over a window is
pulled steadily away from what smoothness wants: it follows the smooth gradient alone in the next window.
Equations: w' = w + rho g / ||g||; weights get (g(w) + g(w')) / 2; disorder of a step over a window of n batches = share
of consecutive task gradients whose sign flips; below `threshold` the task gradient of that step is left out for the
next window.
Differences: SAM in its plain form; threshold 0.3 and windows of 50 batches are ours, the paper's are not known to us;
steps with one value per channel count signs of their sum; batch norms keep
their moving statistics while weights are shifted. The mean of both gradients instead of their sum, so that rates of
weights and of quantizer steps mean what they mean in plain training.
Cost: two forward and backward passes a batch. Limits: the gain on unseen domains is what the paper claims, not checked
here beyond the mechanism.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from netsuke.core.errors import Problem, UsageError
from netsuke.core.method import Method, register

if TYPE_CHECKING:
    from torch import Tensor

    from netsuke.methods.qat._network import QatNetwork
    from netsuke.methods.qat._training import Loss


@dataclass(frozen=True)
class Gaqat:
    """rho: length of the perturbation; window: batches between decisions; threshold: disorder below it freezes."""

    rho: float = 0.05
    window: int = 50
    threshold: float = 0.3

    def __post_init__(self) -> None:
        problems = []
        if not 0 < self.rho <= 10:
            problems.append(Problem("rho", "qat/gaqat", str(self.rho), "(0, 10]"))
        if self.window < 2:
            problems.append(Problem("window", "qat/gaqat", str(self.window), "2 or more"))
        if not 0 <= self.threshold <= 1:
            problems.append(Problem("threshold", "qat/gaqat", str(self.threshold), "[0, 1]"))
        if problems:
            raise UsageError(problems)


@dataclass
class Disorder:
    """Signs of one quantizer step's task gradient, and how often it stood against the smooth one in this window."""

    signs: list[int] = field(default_factory=list)
    opposed: int = 0
    frozen: bool = False

    @property
    def value(self) -> float:
        """Share of consecutive batches whose sign flips."""
        pairs = list(zip(self.signs, self.signs[1:], strict=False))
        return sum(a != b for a, b in pairs) / max(1, len(pairs))


class SmoothStep:
    """The step of the loop. `steps`: what is known of every quantizer step; `log`: one row a window and step."""

    def __init__(self, network: QatNetwork, config: Gaqat) -> None:
        self.config, self.count = config, 0
        self.steps = {n: Disorder() for n, q in network.quantizers().items() if q.spec.schedule == "learned"}
        self.log: list[dict[str, Any]] = []

    def __call__(self, network: QatNetwork, x: Tensor, y: Tensor, loss: Loss, optimizer: Any) -> float:
        import torch

        optimizer.zero_grad()
        value = loss(network(x), x, y)
        value.backward()
        task = {n: _gradient(p) for n, p in network.named_parameters()}
        heavy = [p for p in network.parameters() if p.grad is not None and p.ndim > 1]
        norm = torch.stack([_gradient(p).square().sum() for p in heavy]).sum().sqrt().clamp(min=1e-12)
        moves = [self.config.rho * _gradient(p) / norm for p in heavy]
        _shift(heavy, moves, 1.0)
        optimizer.zero_grad()
        with _still(network):  # moving statistics are those of the weights that stay, not of the shifted ones
            loss(network(x), x, y).backward()
        _shift(heavy, moves, -1.0)
        scales = {id(q.scale): n for n, q in network.quantizers().items() if n in self.steps}
        for name, p in network.named_parameters():
            if p.grad is None:
                continue
            step = self.steps.get(scales.get(id(p), ""))
            if step is not None:
                self._watch(step, task[name], p.grad)
            if step is None or not step.frozen:
                p.grad.add_(task[name])
            p.grad.mul_(0.5)
        optimizer.step()
        self.count += 1
        if self.count % self.config.window == 0:
            self._decide()
        return float(value.detach())

    def _watch(self, step: Disorder, task: Tensor, smooth: Tensor) -> None:
        step.signs.append(1 if float(task.sum()) >= 0 else -1)
        step.opposed += float(task.sum()) * float(smooth.sum()) < 0

    def _decide(self) -> None:
        """Freeze the task gradient of steady steps for the next window."""
        for name, step in self.steps.items():
            row = {"step": self.count, "scale": name, "disorder": step.value}
            row["conflicts"] = step.opposed / max(1, len(step.signs))
            step.frozen = step.value < self.config.threshold
            self.log.append(row | {"frozen": step.frozen})
            step.signs, step.opposed = [], 0


@contextlib.contextmanager
def _still(network: QatNetwork) -> Iterator[None]:
    """Batch norms do not move their statistics."""
    from torch import nn

    norms = [m for m in network.modules() if isinstance(m, (nn.BatchNorm1d, nn.BatchNorm2d))]
    kept = [m.momentum for m in norms]
    try:
        for m in norms:
            m.momentum = 0.0
        yield
    finally:
        for m, value in zip(norms, kept, strict=True):
            m.momentum = value


def _gradient(p: Tensor) -> Tensor:
    import torch

    return torch.zeros_like(p) if p.grad is None else p.grad.detach().clone()


def _shift(parameters: list[Any], moves: list[Tensor], sign: float) -> None:
    import torch

    with torch.no_grad():
        for p, move in zip(parameters, moves, strict=True):
            p.add_(move, alpha=sign)


def apply(network: QatNetwork, config: Gaqat = Gaqat()) -> SmoothStep:
    """The step for `train(..., step=...)`; the network is prepared with qat/lsq."""
    return SmoothStep(network, config)


METHOD = register(
    Method(
        name="qat/gaqat",
        purpose="sharpness-aware training that freezes the task gradient of steadily pulled quantizer steps",
        paper="gaqat",
        config=Gaqat,
        apply=apply,
        needs=("data", "gradients", "training"),
        touches=("weights", "activations"),
        exports=("qconv", "qlinear"),
        status="trial",
        cost="two forward and backward passes a batch",
        tags=("step",),
    )
)
