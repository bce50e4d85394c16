"""FLIQS: which number format each layer gets is learned by reinforcement while the network trains, once.

Paper: Dotzel et al., "FLIQS: One-Shot Mixed-Precision Floating-Point and Integer Quantization Search", 2024 (arXiv
2308.03290).
Idea: a policy samples a format for every layer at every batch, the shared weights train with that sample, and the
policy learns from accuracy and cost. At the end the likeliest formats are taken with the weights as they are.
Equations: reward r = accuracy of the batch - beta |cost / target - 1|, cost = sum_l weights_l bits(f_l); baseline b is
the moving average of r; policy loss = -(r - b) mean_l log p(f_l) + h(t) mean entropy. h is 0 during `delay` steps
(formats uniform, policy still) and then grows to `entropy` as a cosine: the search explores first and settles at the
end.
Differences: weights only, activations keep the bits of the network; cost is stored bits instead of bit operations.
Floats have two exponent bits (E2M1, E2M2, E2M3): those whose codes the integer kernels run; E4M3 and E3M2 have no
kernel beside integer activations. Ranges are those of the weights at every step, so switching formats leaves no stale
ones.
Cost: a training run. Limits: the first and the last layer keep their bits; accuracy of a batch is a noisy reward.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from netsuke.core.errors import Problem, UsageError
from netsuke.core.method import Method, register
from netsuke.formats.forms import FORMS, parse_forms

if TYPE_CHECKING:
    from torch import Tensor

    from netsuke.methods.qat._network import QatNetwork
    from netsuke.methods.qat._training import Loss


@dataclass(frozen=True)
class Fliqs:
    """formats   to choose from, "int4+e2m1+int8"; see `netsuke.formats.forms.FORMS`
    target       mean bits of a weight over the searched layers
    beta         weight of the cost in the reward
    delay, steps  batches before the policy learns, and until its entropy is driven out; of about the whole training
    rate         of Adam on the policy; entropy: largest weight of the entropy; memory: of the baseline
    """

    formats: str = "int2+int4+e2m1+int8"
    target: float = 4.0
    beta: float = 1.0
    delay: int = 50
    steps: int = 300
    rate: float = 0.03
    entropy: float = 0.5
    memory: float = 0.95
    seed: int = 0

    def __post_init__(self) -> None:
        problems = []
        names = parse_forms(self.formats, "qat/fliqs")
        low, high = min(FORMS[n][0] for n in names), max(FORMS[n][0] for n in names)
        if not low <= self.target <= high:
            problems.append(Problem("target", "qat/fliqs", str(self.target), f"{low} to {high}, as the formats have"))
        if not 0 <= self.delay < self.steps:
            problems.append(Problem("delay", "qat/fliqs", f"{self.delay} of {self.steps} steps", "below steps"))
        problems += [
            Problem(key, "qat/fliqs", str(getattr(self, key)), "[0, 1000)")
            for key in ("beta", "rate", "entropy")
            if not 0 <= getattr(self, key) < 1000
        ]
        if not 0 <= self.memory < 1:
            problems.append(Problem("memory", "qat/fliqs", str(self.memory), "[0, 1)"))
        if problems:
            raise UsageError(problems)


class FormatSearch:
    """The step of the loop. `formats()`: the likeliest of each layer; `finish()` sets them; `log`: cost and entropy."""

    def __init__(self, network: QatNetwork, config: Fliqs) -> None:
        import torch

        from netsuke.nn.quantizer_formats import FormatWeights

        self.config, self.names = config, parse_forms(config.formats, "qat/fliqs")
        self.layers = {n: m for n, m in network.layers().items() if n not in network.edges}
        if not self.layers:
            raise UsageError(Problem("no layer between the first and the last", "qat/fliqs"))
        for layer in self.layers.values():
            layer.weight = FormatWeights(tuple(layer.real_weight().shape))
            layer.weight.calibrate(layer.real_weight())
        sizes = [float(layer.real_weight().numel()) for layer in self.layers.values()]
        self.sizes = torch.tensor(sizes)
        self.bits = torch.tensor([float(FORMS[n][0]) for n in self.names])
        self.logits = torch.zeros(len(self.layers), len(self.names), requires_grad=True)
        self.policy = torch.optim.Adam([self.logits], config.rate)
        self.generator = torch.Generator().manual_seed(config.seed)
        self.baseline: float | None = None
        self.count = 0
        self.log: list[dict[str, float]] = []

    def __call__(self, network: QatNetwork, x: Tensor, y: Tensor, loss: Loss, optimizer: Any) -> float:
        import torch

        chance = torch.softmax(self.logits.detach(), 1)
        if self.count < self.config.delay:
            chance = torch.full_like(chance, 1 / len(self.names))
        choice = torch.multinomial(chance, 1, generator=self.generator)[:, 0]
        self._set(choice)
        out = network(x)
        value = loss(out, x, y)
        optimizer.zero_grad()
        value.backward()
        optimizer.step()
        quality = float((out.detach().argmax(1) == y).float().mean())
        mean_bits = self.mean_bits(choice)
        reward = quality - self.config.beta * abs(mean_bits / self.config.target - 1)
        self.baseline = reward if self.baseline is None else self.baseline
        if self.count >= self.config.delay:
            self._learn(choice, reward)
        keep = self.config.memory
        self.baseline = keep * self.baseline + (1 - keep) * reward
        self.count += 1
        return float(value.detach())

    def _learn(self, choice: Tensor, reward: float) -> None:
        import torch

        assert self.baseline is not None
        logs = torch.log_softmax(self.logits, 1)
        entropy = -(logs.exp() * logs).sum(1).mean()
        share = min(1.0, (self.count - self.config.delay) / (self.config.steps - self.config.delay))
        weight = self.config.entropy * 0.5 * (1 - math.cos(math.pi * share))
        taken = logs[torch.arange(len(choice)), choice].mean()
        total = -(reward - self.baseline) * taken + weight * entropy
        self.policy.zero_grad()
        total.backward()
        self.policy.step()
        self.log.append(
            {"step": self.count, "reward": reward, "bits": self.mean_bits(choice), "entropy": float(entropy.detach())}
        )

    def mean_bits(self, choice: Tensor) -> float:
        """Mean bits of a weight over the searched layers."""
        return float((self.bits[choice] * self.sizes).sum() / self.sizes.sum())

    def _set(self, choice: Tensor) -> None:
        for layer, index in zip(self.layers.values(), choice.tolist(), strict=True):
            layer.weight.form = self.names[index]

    def formats(self) -> dict[str, str]:
        """The likeliest format of each layer."""
        best = self.logits.argmax(1).tolist()
        return {name: self.names[i] for name, i in zip(self.layers, best, strict=True)}

    def finish(self) -> str:
        """Take the likeliest formats; a line for the reader."""
        choice = self.logits.detach().argmax(1)
        self._set(choice)
        words = ", ".join(f"{name} {form}" for name, form in self.formats().items())
        return f"fliqs: {self.mean_bits(choice):.2f} bits a weight of {self.config.target:g} asked: {words}"


def apply(network: QatNetwork, config: Fliqs = Fliqs()) -> FormatSearch:
    """The step for `train(..., step=...)`; the network is prepared with any rules, weights of all inner layers are
    searched. Call `finish()` after training."""
    return FormatSearch(network, config)


METHOD = register(
    Method(
        name="qat/fliqs",
        purpose="search an integer or float format per layer under a target size while training once",
        paper="fliqs",
        config=Fliqs,
        apply=apply,
        needs=("data", "labels", "gradients", "training"),
        touches=("weights", "activations"),
        exports=("qconv", "qlinear"),
        cost="a training run",
        tags=("step",),
    )
)
