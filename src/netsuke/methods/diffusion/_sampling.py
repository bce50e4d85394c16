"""What a sampling run is, and the run of a float network as data: inputs and outputs of every step."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from netsuke.core.errors import Problem, UsageError
from netsuke.nn.diffusion import sample, starts


@dataclass(frozen=True)
class Sampling:
    """steps   calls of the network per image
    shape   of one image; labels: number of classes
    count   images drawn for calibration; seed: of their noise
    """

    steps: int = 8
    shape: tuple[int, ...] = (1, 8, 8)
    labels: int = 10
    count: int = 64
    seed: int = 0

    def __post_init__(self) -> None:
        low = {"steps": 1, "labels": 1, "count": 2, "seed": 0}
        problems = [Problem(k, "sampling", str(getattr(self, k)), f"at least {v}") for k, v in low.items()
                    if getattr(self, k) < v]  # fmt: skip
        if len(self.shape) != 3:
            problems.append(Problem("shape", "sampling", str(self.shape), "channels, height, width"))
        if problems:
            raise UsageError(problems)

    @property
    def shapes(self) -> dict[str, tuple[int, ...]]:
        """Shapes of one input batch, by the denoiser's argument."""
        return {"image": (1, *self.shape), "time": (1,), "label": (1,)}

    @property
    def dtypes(self) -> dict[str, str]:
        return {"image": "f32", "time": "f32", "label": "i64"}

    def start(self, count: int = 0, round_: int = 0) -> tuple[Tensor, Tensor]:
        """Noise and labels; another round draws other noise."""
        noise, labels = starts(count or self.count, self.shape, self.labels, self.seed * 10_007 + round_)
        return torch.from_numpy(noise), torch.from_numpy(labels)


@dataclass(frozen=True)
class Seen:
    """What went into the network at one step, and what came out."""

    inputs: tuple[Tensor, Tensor, Tensor]
    v: Tensor


@torch.no_grad()
def trajectory(model: nn.Module, sampling: Sampling, *, count: int = 0, round_: int = 0) -> list[Seen]:
    """The run of a network from noise, step by step: data without data."""
    noise, labels = sampling.start(count, round_)
    seen: list[Seen] = []

    def watch(_: int, x: Tensor, t: Tensor, v: Tensor) -> None:
        seen.append(Seen((x, t, labels), v))

    sample(model, noise, labels, sampling.steps, watch=watch)
    if not all(bool(torch.isfinite(s.v).all()) for s in seen):
        raise UsageError(Problem("the float network's samples are not finite", "sampling", f"{sampling.steps} steps"))
    return seen


def together(seen: list[Seen]) -> Seen:
    """All steps as one batch."""
    parts = [torch.cat(column) for column in zip(*(s.inputs for s in seen), strict=True)]
    return Seen((parts[0], parts[1], parts[2]), torch.cat([s.v for s in seen]))


def finite(loss: Tensor, where: str) -> float:
    """The loss as a number; UsageError when it is none."""
    value = float(loss.detach())
    if not math.isfinite(value):
        raise UsageError(Problem("the loss is not a number", where, str(value), hint="a lower rate"))
    return value
