"""TopKLD: distillation that treats what the teacher would sample and the rest of its answers differently.

Paper: "Dissecting Bit-Level Scaling Laws in Quantizing Vision Generative Models", 2025 (ledger row bit-scaling-laws).
Idea: a generator samples among its K likeliest tokens. Those must not be missed nor made up (reverse divergence seeks
modes); the tail must not be forgotten (forward divergence covers). One loss for each part instead of one for all.
Equations: p teacher, q student, T the K largest of p; D(a, b) = sum a ln(a / b) - a + b, which is never negative on a
part of a distribution too; L = sum over T of D(q, p) + sum over the rest of D(p, q). K = 0 is the forward divergence of
ordinary distillation, K of all classes the reverse one: the paper's two ablations.
Differences: the exact loss is not public; direction and weights of the parts are a reconstruction. The teacher is the
network itself as it was given, quantizers off. What is added to the loop's loss, `weight` times L, stands beside labels
and whatever distillation the loop has (`--distill 0` leaves TopKLD alone with the labels).
Cost: one more forward pass a batch. Limits: the paper sees gains at 3 bits, none at 8.
"""

from __future__ import annotations

import copy
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from netsuke.core.errors import Problem, UsageError
from netsuke.core.method import Method, register

if TYPE_CHECKING:
    from torch import Tensor

    from netsuke.methods.qat._network import QatNetwork
    from netsuke.methods.qat._training import Loss


@dataclass(frozen=True)
class TopKld:
    """k: classes or tokens of the explicit part; weight of the loss; temperature of both distributions."""

    k: int = 5
    weight: float = 1.0
    temperature: float = 1.0

    def __post_init__(self) -> None:
        problems = [
            Problem(key, "qat/topkld", str(getattr(self, key)), "(0, 1000]")
            for key in ("weight", "temperature")
            if not 0 < getattr(self, key) <= 1e3
        ]
        if self.k < 0:
            problems.append(Problem("k", "qat/topkld", str(self.k), "0 or more"))
        if problems:
            raise UsageError(problems)


def topkld(student: Tensor, teacher: Tensor, k: int, temperature: float = 1.0) -> Tensor:
    """The loss of logits [..., classes] against the teacher's, mean over everything but the classes."""
    import torch

    log_q, log_p = (logits.div(temperature).log_softmax(-1) for logits in (student, teacher))
    q, p = log_q.exp(), log_p.exp()
    explicit = torch.zeros_like(p, dtype=torch.bool)
    explicit.scatter_(-1, p.topk(min(k, p.shape[-1]), dim=-1).indices, True)
    reverse, forward = q * (log_q - log_p) - q + p, p * (log_p - log_q) - p + q
    return torch.where(explicit, reverse, forward).sum(-1).mean() * temperature**2


class TopKldStep:
    """The step of the loop: the loop's loss plus the weighted TopKLD against the network as it was."""

    def __init__(self, network: QatNetwork, config: TopKld) -> None:
        self.config = config
        self.teacher = copy.deepcopy(network).train()  # float arithmetic: eval mode computes what is served
        self.teacher.freeze_norms()
        for quantizer in self.teacher.quantizers().values():
            quantizer.enabled = False
        for p in self.teacher.parameters():
            p.requires_grad_(False)

    def __call__(self, network: QatNetwork, x: Tensor, y: Tensor, loss: Loss, optimizer: Any) -> float:
        import torch

        with torch.no_grad():
            wanted = self.teacher(x)
        out = network(x)
        value = loss(out, x, y) + self.config.weight * topkld(out, wanted, self.config.k, self.config.temperature)
        optimizer.zero_grad()
        value.backward()
        optimizer.step()
        return float(value.detach())


def apply(network: QatNetwork, config: TopKld = TopKld()) -> TopKldStep:
    """The step for `train(..., step=...)`; make it before the network is trained: it remembers the float network."""
    return TopKldStep(network, config)


METHOD = register(
    Method(
        name="qat/topkld",
        purpose="distillation: reverse divergence on the teacher's top K answers, forward divergence on the rest",
        paper="bit-scaling-laws",
        config=TopKld,
        apply=apply,
        needs=("data", "gradients", "training"),
        touches=("weights", "activations"),
        exports=("qconv", "qlinear"),
        status="trial",
        cost="one forward pass of the float network more a batch",
        tags=("step",),
    )
)
