"""Diffusion on a circle: what is trained, and the deterministic sampler that runs any network that was.

A noisy image at time u in [0, 1] is x = cos(a) image + sin(a) noise with a = u pi / 2; the network is given x, the time
in thousandths (1000 u) and a class, and predicts v = cos(a) noise - sin(a) image (Salimans & Ho 2022, arXiv
2202.00512).
`sample` is DDIM without fresh noise (Song et al. 2021, arXiv 2010.02502): each step reads image and noise off x and v
and turns to the next, smaller angle. It uses only operators that NumPy arrays and tensors share, so a PyTorch network,
a compiled program and a mixture of both (`by_step`) run through the same lines.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from netsuke.core.errors import Problem, UsageError

if TYPE_CHECKING:
    import torch

TIMES = 1000.0
Denoiser = Callable[[Any, Any, Any], Any]
"""(x [N, C, H, W], t f32 [N] in thousandths, class i64 [N]) -> v like x; NumPy or torch, as it is given."""

Watch = Callable[[int, Any, Any, Any], None]
"""(step, x, t, v): what a sampling run passed through."""


def angles(steps: int) -> list[float]:
    """The steps + 1 angles of a run, from pi / 2 (noise) down to 0 (image); UsageError for fewer than one step."""
    if steps < 1:
        raise UsageError(Problem("sampling steps", got=str(steps), allowed="at least 1"))
    return [0.5 * math.pi * (steps - i) / steps for i in range(steps + 1)]


def times(steps: int) -> list[float]:
    """What the network is told at each of the steps, in thousandths of the whole."""
    return [TIMES * a / (0.5 * math.pi) for a in angles(steps)[:-1]]


def sample(network: Denoiser, noise: Any, classes: Any, steps: int = 8, *, watch: Watch | None = None) -> Any:
    """Images in [-1, 1] from noise, in `steps` calls of the network. The same noise and classes give the same images.

    noise    [N, C, H, W] f32, NumPy array or tensor; classes: i64 [N] of the same kind
    watch    is called after every step, before x moves on
    """
    x, path = noise, angles(steps)
    for step, t in enumerate(times(steps)):
        filled = classes * 0 + t
        at = filled.astype(np.float32) if isinstance(x, np.ndarray) else filled.float()
        v = network(x, at, classes)
        if watch is not None:
            watch(step, x, at, v)
        x = move(x, v, path[step], path[step + 1])
    return x


def move(x: Any, v: Any, now: float, then: float) -> Any:
    """One DDIM step: image and noise as the network sees them at angle `now`, put together again at angle `then`."""
    image = (math.cos(now) * x - math.sin(now) * v).clip(-1.0, 1.0)
    noise = (x - math.cos(now) * image) / math.sin(now)
    return math.cos(then) * image + math.sin(then) * noise


def by_step(networks: Sequence[Denoiser]) -> Denoiser:
    """One denoiser of several, the n-th of which runs step n: programs whose activation scales belong to a step.

    UsageError when the time it is given is none of theirs.
    """
    known = times(len(networks))

    def run(x: Any, t: Any, classes: Any) -> Any:
        now = float(t[0])
        step = min(range(len(known)), key=lambda i: abs(known[i] - now))
        if abs(known[step] - now) > 0.5:
            got, allowed = f"time {now:g}", f"{len(known)} steps"
            raise UsageError(Problem("no network for this time", got=got, allowed=allowed))
        return networks[step](x, t, classes)

    return run


def noisy(
    images: torch.Tensor, rng: torch.Generator, u: torch.Tensor | None = None
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Training example of clean images in [-1, 1]: (x, t, v) at random times, or at the times u [N] in [0, 1]."""
    import torch

    u = torch.rand(len(images), generator=rng) if u is None else u
    angle = (0.5 * math.pi * u).reshape(-1, *(1,) * (images.ndim - 1))
    noise = torch.randn(images.shape, generator=rng)
    x = torch.cos(angle) * images + torch.sin(angle) * noise
    return x, TIMES * u, torch.cos(angle) * noise - torch.sin(angle) * images


def starts(count: int, shape: Sequence[int], classes: int = 10, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Seeded noise [count, *shape] f32 and evenly spread classes [count] i64 to start sampling from."""
    from netsuke.core.seeds import generator

    noise = generator(seed, "diffusion.noise").standard_normal((count, *shape)).astype(np.float32)
    return noise, np.arange(count, dtype=np.int64) % classes
