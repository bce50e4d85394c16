"""Random one-bit nodes: signs of some value, then a layer over them whose thresholds fall among the sums that occur."""

from __future__ import annotations

from typing import Any

import numpy as np

from netsuke.formats import pack_bits
from netsuke.program.model import Node
from netsuke.program.opset import attributes
from netsuke.program.reference import Call
from netsuke.program.reference.binary import binary_sums

from .maker import CHANNELS, Array, Maker


def _flip(m: Maker, channels: int) -> str:
    return m.constant("f", m.rng.random(channels) < 0.3) if m.chance(0.5) else ""


def _packed(m: Maker, image: bool) -> tuple[str, int]:
    """Signs of a recent value and their number of channels; ("", 0) when there is none."""
    x = m.image(m.choice(("u8", "f32"))) if image else m.pick(m.choice(("u8", "f32")), lambda a: a.ndim >= 1)
    return _packed_of(m, x) if x and m.arrays[x].size else ("", 0)


def _packed_of(m: Maker, x: str) -> tuple[str, int]:
    values, channels = m.arrays[x], m.arrays[x].shape[-1]
    if values.dtype == np.uint8:
        threshold: Array = m.rng.integers(-1, 258, channels).astype(np.int32)
    else:
        threshold = m.rng.choice(np.nan_to_num(values.reshape(-1)), channels).astype(np.float32)
    made = m.add("sign_pack", [x, m.constant("t", threshold), _flip(m, channels)])
    if made and m.chance(0.2):
        made = m.add("identity", made)
    return (made[0], channels) if made else ("", 0)


def _thresholds(m: Maker, values: Array, channels: int, dtype: type) -> Array:
    flat = values.reshape(-1) if values.size else np.zeros(1)
    return np.nan_to_num(m.rng.choice(flat, channels) + m.integer(0, 1)).astype(dtype)


def _layer(m: Maker, op: str, x: str, w: Array, attrs: dict[str, Any], channels: int) -> None:
    out = m.choice(("bits", "u8", "f32"))
    names = [x, m.constant("w", w), *[""] * 7]
    attrs = {**attrs, "out": out}
    probe = Node(op, "probe", names, ["p"], attrs)
    try:
        acc = binary_sums(Call(probe, [m.arrays[n] if n else None for n in names], attributes(probe)))
    except Exception:  # the window does not fit: no such node
        return
    if out == "bits":
        names[7], names[8] = m.constant("t", _thresholds(m, acc, channels, np.int32)), _flip(m, channels)
        m.add(op, names, attrs)
        return
    zero = m.zero()
    spread = float(np.abs(acc).mean()) + 1.0 if acc.size else 1.0
    names[2] = m.constant("s", (30.0 / spread * m.rng.uniform(-2.0, 2.0, channels)).astype(np.float32))
    for index, kind in ((3, "b"), (4, "p"), (5, "q")):
        if m.chance(0.5):
            names[index] = m.constant(kind, m.rng.normal(0, 10 if kind != "p" else 1, channels).astype(np.float32))
    same = m.values(out, lambda a: a.shape == acc.shape)
    if same and m.chance(0.7):
        names[6] = m.choice(same)
        if out == "u8":
            attrs |= {"r_zero": m.zeros[names[6]], "r_mult": m.scale()}
    if out == "u8":
        attrs |= {"zero": zero, **m.clip(zero)}
    outputs = 1
    if m.chance(0.6):
        outputs = 2
        codes = m.rng.integers(0, 257, channels).astype(np.int32)
        names[7] = m.constant("t", codes if out == "u8" else m.rng.normal(0, 20, channels).astype(np.float32))
        names[8] = _flip(m, channels)
    m.add(op, names, attrs, outputs=outputs, zero=zero)


def bconv(m: Maker) -> None:
    x, c = _packed(m, image=True)
    if not x:
        return
    groups = m.choice([g for g in range(1, c + 1) if c % g == 0]) if m.chance(0.3) else 1
    outputs = groups * m.integer(1, max(1, 64 // groups)) if groups > 1 else m.choice(CHANNELS)
    kernel = m.choice(((1, 1), (3, 3), (3, 3), (5, 5), (1, 3), (2, 2)))
    signs = m.rng.random((outputs, *kernel, c // groups)) < m.choice((0.5, 0.5, 0.0, 1.0))
    strides, pads = [m.choice((1, 1, 2, 3)), m.choice((1, 1, 2, 3))], [m.integer(0, 3) for _ in range(4)]
    if m.chance(0.6):
        strides, pads = [1, 1], [kernel[0] // 2, kernel[1] // 2, (kernel[0] - 1) // 2, (kernel[1] - 1) // 2]
    window = {"strides": strides, "pads": pads, "dilations": [m.choice((1, 1, 2)), m.choice((1, 1, 2))]}
    attrs = {**window, "groups": groups, "channels": c, "pad_value": m.integer(-1, 1)}
    if m.chance(0.3):
        attrs |= {"pad_value": 0, "levels": "bool"}
    _layer(m, "bconv", x, pack_bits(signs), attrs, outputs)


def blinear(m: Maker) -> None:
    x, c = _packed(m, image=False)
    if x:
        outputs = m.choice(CHANNELS)
        attrs = {"channels": c, "levels": m.choice(("sign", "bool"))}
        _layer(m, "blinear", x, pack_bits(m.rng.random((outputs, c)) < 0.5), attrs, outputs)


def bmatmul(m: Maker) -> None:
    """Signs of a value times signs of it; out "bits" would need a fixed number of rows, which sizes here are not."""
    x = m.pick(m.choice(("u8", "f32")), lambda a: a.ndim >= 2 and a.size > 0 and a.shape[-2] <= 300)
    if not x:
        return
    (a, channels), (b, _) = _packed_of(m, x), _packed_of(m, x)
    if a and b:
        m.add("bmatmul", [a, b], {"channels": channels, "levels": m.choice(("sign", "bool")), "mult": m.scale()})


BINARY = [bconv] * 3 + [bmatmul, blinear]
