"""The sampler: it undoes the noise a perfect network knows, in NumPy and torch alike."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest

from netsuke.core.errors import UsageError
from netsuke.nn import diffusion

torch = pytest.importorskip("torch")


def knowing(image: Any) -> Any:
    """The network that knows the image: v follows from x and the time alone."""

    def run(x: Any, t: Any, _: Any) -> Any:
        a = 0.5 * math.pi * float(t[0]) / diffusion.TIMES
        noise = (x - math.cos(a) * image) / math.sin(a)
        return math.cos(a) * noise - math.sin(a) * image

    return run


@pytest.mark.parametrize("steps", [1, 2, 7])
def test_a_perfect_network_gives_its_image_in_any_number_of_steps(steps: int) -> None:
    noise, classes = diffusion.starts(4, (1, 8, 8))
    image = np.clip(noise[::-1].copy(), -0.9, 0.9)
    seen: list[tuple[int, float]] = []
    made = diffusion.sample(
        knowing(image), noise, classes, steps, watch=lambda i, _x, t, _v: seen.append((i, float(t[0])))
    )
    assert made.dtype == np.float32
    np.testing.assert_allclose(made, image, atol=1e-5)
    assert [i for i, _ in seen] == list(range(steps))
    np.testing.assert_allclose([t for _, t in seen], diffusion.times(steps), rtol=1e-6)


def test_arrays_and_tensors_take_the_same_path() -> None:
    noise, classes = diffusion.starts(3, (1, 8, 8), seed=1)
    image = noise[::-1].copy() / 3
    ours = diffusion.sample(knowing(image), noise, classes, 5)
    theirs = diffusion.sample(knowing(torch.from_numpy(image)), torch.from_numpy(noise), torch.from_numpy(classes), 5)
    np.testing.assert_allclose(ours, theirs.numpy(), atol=1e-5)


def test_examples_are_what_the_sampler_will_ask() -> None:
    rng = torch.Generator().manual_seed(0)
    image = torch.rand(6, 1, 8, 8) * 2 - 1
    x, t, v = diffusion.noisy(image, rng, torch.full((6,), 0.5))
    assert t.tolist() == [500.0] * 6
    np.testing.assert_allclose(diffusion.move(x, v, math.pi / 4, 0.0).numpy(), image.numpy(), atol=1e-5)


def test_a_network_per_step() -> None:
    calls: list[int] = []

    def network(index: int) -> Any:
        def run(x: Any, _t: Any, _y: Any) -> Any:
            calls.append(index)
            return 0 * x

        return run

    noise, classes = diffusion.starts(2, (1, 8, 8))
    diffusion.sample(diffusion.by_step([network(i) for i in range(4)]), noise, classes, 4)
    assert calls == [0, 1, 2, 3]
    with pytest.raises(UsageError, match="no network for this time"):
        diffusion.sample(diffusion.by_step([network(0)] * 4), noise, classes, 3)
    with pytest.raises(UsageError, match="sampling steps"):
        diffusion.times(0)
