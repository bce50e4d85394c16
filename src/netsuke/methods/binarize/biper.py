"""BiPer: a square wave forward, the sine of the same period backward.

Paper: Binary Neural Networks using a Periodic Function, Vargas et al. 2024 (arXiv 2404.01278); ledger row biper.
Idea: sign(sin(w0 w)) has a smooth partner of the same period; the frequency w0 sets how far apart the two are.
Equations: stage 1: weights sin(w0 w), activations binary; stage 2: b = sign(sin(w0 w)), dL/dw = dL/db w0 cos(w0 w).
Activations: x / std of the sample while training, slope max(0, 2 - 2|x|). y = alpha_o times the product, alpha trained
from uniform(0, 1). Loss += tau sum over layers of E[sin(w0 w)^2] (`regularizer`).
Differences: none known.
Cost: a sine a weight and step. Limits: not monotone in w; learning rates must fall as w0 grows (gradients carry w0).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from netsuke.core.errors import Problem, UsageError
from netsuke.core.method import Method, register

if TYPE_CHECKING:
    from torch import Tensor, nn

    from netsuke.nn.binary_layers import Layer


@dataclass(frozen=True)
class Config:
    """frequency: w0; stage: 1 (real weights) or 2 (binary weights); seed: of the first scales."""

    frequency: float = 20.0
    stage: int = 2
    seed: int = 0


def apply(model: nn.Module, config: Config, *, keep: Sequence[str] | None = None) -> nn.Module:
    """Make the layers of the network binary, in place; see the room's contract."""
    import torch

    from netsuke.nn.binarizer import Binarizer, Learned, One, SampleDeviation, Sign, Sine
    from netsuke.nn.binary_layers import binarize
    from netsuke.nn.surrogates import Identity, Polynomial

    if config.stage not in (1, 2):
        raise UsageError(Problem("stage", "binarize/biper", str(config.stage), "1, 2"))
    generator = torch.Generator().manual_seed(config.seed)

    def weights(layer: Layer) -> Binarizer:
        scale = Learned(layer.weight.shape[0], None, generator=generator)
        levels = Sign(Identity()) if config.stage == 2 else _Real()
        return Binarizer(levels, scale, Sine(config.frequency))

    def inputs(_: Layer) -> Binarizer:
        return Binarizer(Sign(Polynomial()), One(), SampleDeviation())

    return binarize(model, weights=weights, inputs=inputs, keep=keep)


class _Real:
    """Stage 1: the sine itself is used."""

    lo, hi = -1, 1

    def __call__(self, u: Tensor, scale: Tensor) -> Tensor:
        del scale
        return u


def second_stage(model: nn.Module) -> nn.Module:
    """Turn a network trained in stage 1 into stage 2, in place: same weights, scales and frequency."""
    from netsuke.nn.binarizer import Sign
    from netsuke.nn.binary_layers import layers
    from netsuke.nn.surrogates import Identity

    for _, layer in layers(model):
        if isinstance(layer.weights.levels, _Real):
            layer.weights.levels = Sign(Identity())
    return model


def regularizer(model: nn.Module) -> Tensor:
    """sum over BiPer layers of E[sin(w0 w)^2], to be added to the loss times tau (0.037 in the paper)."""
    import torch

    from netsuke.nn.binarizer import Sine
    from netsuke.nn.binary_layers import layers

    found = [(layer.weights.transform, layer.weight) for _, layer in layers(model)]
    waves = [transform(weight) for transform, weight in found if isinstance(transform, Sine)]
    if not waves:
        raise UsageError(Problem("no layer of binarize/biper in this network"))
    return torch.stack([(wave**2).mean() for wave in waves]).sum()


def quantization_error(weight: Tensor, frequency: float) -> float:
    """E| sin(w0 w) - sign(sin(w0 w)) |: from 1 for small w0 to 1 - 2/pi."""
    import torch

    wave = torch.sin(frequency * weight.detach())
    return float((wave - torch.where(wave >= 0, 1.0, -1.0)).abs().mean())


METHOD = register(
    Method(
        name="binarize/biper",
        purpose="binarize with a square wave, train with the sine of its period",
        paper="biper",
        config=Config,
        apply=apply,
        needs=("training",),
        touches=("weights", "activations"),
        exports=("bconv", "blinear"),
        status="trial",
        cost="one pass over the weights a step; training as long as the float network's or longer",
    )
)
