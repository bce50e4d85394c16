"""random_program(seed): a random valid program of one family with an input for it."""

from __future__ import annotations

import numpy as np

from netsuke.program.model import Program

from .binary_ops import BINARY
from .float_ops import FLOAT
from .integer_ops import INTEGER
from .maker import CHANNELS, SIZES, Array, Maker, grow
from .movement_ops import MOVEMENT

FAMILIES = ("integer", "float")


def random_program(
    seed: int, family: str = "integer", supported: set[str] | None = None
) -> tuple[Program, dict[str, Array]]:
    """A valid program and feeds for it. supported: operators that may occur (None: all)."""
    m = Maker(seed * 2 + FAMILIES.index(family), supported)
    shape = _shape(m)
    free = (*("N", "H", "W")[: len(shape) - 1], shape[-1]) if m.chance(0.5) else shape
    if family == "float":
        m.input(m.rng.normal(0, 1, shape).astype(np.float32), "f32", free)
        if m.chance(0.5):
            m.input(
                m.rng.normal(0, 1, (m.integer(1, 5), shape[0], shape[-1])).astype(np.float32), "f32", ("T", "N", "C")
            )
        grow(m, FLOAT + MOVEMENT, m.integer(3, 14))
    else:
        _codes(m, shape, free)
        grow(m, INTEGER + MOVEMENT + BINARY, m.integer(3, 16))
    if not m.program.nodes:
        return random_program(seed + 1_000_000_007, family, supported)
    return m.finish()


def _shape(m: Maker) -> tuple[int, ...]:
    """Mostly small images, some large ones (several tiles and threads), some matrices and sequences."""
    kind = m.integer(0, 9)
    if kind == 0:
        return (m.integer(1, 9), m.choice((1, 5, 64, 300, 777, 2048, 3001)))
    if kind == 1:
        return (m.integer(1, 3), m.choice(SIZES), m.choice(CHANNELS))
    if m.limit > 100_000:
        return (1, m.choice((28, 31, 40)), m.choice((28, 30, 56)), m.choice((16, 32, 64, 70)))
    return (m.integer(1, 3), m.choice(SIZES), m.choice(SIZES), m.choice(CHANNELS))


def other_feeds(program: Program, feeds: dict[str, Array], seed: int) -> dict[str, Array]:
    """Feeds of other sizes in the free dimensions, now and then 0."""
    rng = np.random.default_rng(seed)
    sizes: dict[str, int] = {}
    found = {}
    for port in program.inputs:
        for dim in port.shape:
            if isinstance(dim, str):
                sizes.setdefault(dim, int(rng.choice((0, 1, 2, 3, 5, 6, 9, 16))))
        shape = [sizes[dim] if isinstance(dim, str) else dim for dim in port.shape]
        values = rng.integers(0, 256, shape) if port.dtype == "u8" else rng.normal(0, 1, shape)
        found[port.name] = values.astype(feeds[port.name].dtype)
    return found


def _codes(m: Maker, shape: tuple[int, ...], free: tuple[int | str, ...]) -> None:
    """The first codes of an integer program: given as codes, or quantized from floats (some of them NaN)."""
    kind = m.integer(0, 3)
    if kind == 0:
        m.input(m.rng.integers(0, 256, shape).astype(np.uint8), "u8", free)
    elif kind == 1:  # extremes only: what saturating 16-bit sums would get wrong
        m.input(m.rng.choice(np.array([0, 255, 255, 254], np.uint8), shape), "u8", free)
    else:
        x = m.rng.normal(0, 1, shape).astype(np.float32)
        if m.chance(0.3):
            x.reshape(-1)[m.rng.integers(0, x.size, 3)] = [np.nan, np.inf, -np.inf]
        zero = m.zero()
        name = m.input(x, "f32", free)
        scale = float(np.float32(m.rng.uniform(0.01, 0.05)))
        m.add("quantize", [name], {"scale": scale, "zero": zero, **m.clip(zero)}, zero=zero)
        if m.chance(0.95):
            m.order.remove(name)  # float input with NaN: mostly only the quantizer reads it
