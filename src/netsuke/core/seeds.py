"""Random streams. Everything random takes a seed (default 0) and draws from its own generator, never from global
state."""

from __future__ import annotations

import hashlib

import numpy as np

from netsuke.core.errors import Problem, UsageError


def generator(seed: int = 0, *labels: str) -> np.random.Generator:
    """A PCG64 generator that depends on `seed` and on the labels of the place that draws.

    Streams of different labels are independent, so adding a draw in one place does not change the numbers of another.
    The same seed and labels give the same numbers on every machine.
    """
    if isinstance(seed, bool) or not isinstance(seed, int | np.integer) or seed < 0:
        raise UsageError(Problem("a seed must be an integer of at least 0", got=repr(seed), allowed="0, 1, 2, ..."))
    words = [int.from_bytes(hashlib.sha256(label.encode()).digest()[:8], "little") for label in labels]
    return np.random.Generator(np.random.PCG64(np.random.SeedSequence([int(seed), *words])))
