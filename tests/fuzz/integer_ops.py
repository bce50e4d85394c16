"""Random nodes of the integer family: everything here is exact, so all implementations must agree bit for bit."""

from __future__ import annotations

from typing import Any

import numpy as np

from netsuke.formats import dyadic, make_table
from netsuke.program.model import Node
from netsuke.program.opset import attributes
from netsuke.program.reference import Call
from netsuke.program.reference.integer import accumulate

from .maker import CHANNELS, Array, Maker


def weights(m: Maker, shape: tuple[int, ...]) -> Array:
    """s8 weights: anything, small (stored at 1 to 6 bits), mostly zero, all extreme (saturating 16-bit sums)."""
    kind = m.integer(0, 5)
    if kind == 0:
        return np.full(shape, m.choice((127, -127, -128)), np.int8)
    if kind == 1:
        return m.rng.choice(np.array([-128, -127, 127], np.int8), shape)
    if kind == 2:
        bits = m.integer(1, 6)
        codes = m.rng.integers(-(2 ** (bits - 1)), 2 ** (bits - 1), shape)
        return (2 * codes + 1 if bits == 1 else codes).astype(np.int8)
    w = m.rng.integers(-127, 128, shape)
    if kind == 3:
        w = w * (m.rng.random(shape) < 0.3)
    return w.astype(np.int8)


def _tail(m: Maker, op: str, x: str, w: str, attrs: dict[str, Any], channels: int) -> None:
    """Choose scale, bias, residual and output of a qconv or qlinear whose x, w and window are given, and add it."""
    zero = m.zero()
    x_zero = m.zeros[x]
    attrs = {**attrs, "x_zero": x_zero, "zero": zero, **m.clip(zero), "acc_bound": 2**31 - 1}
    names = [x, w, "", "", "", ""]
    if m.chance(0.25):
        names[4] = m.constant("ab", m.rng.integers(-(2**16), 2**16, channels).astype(np.int32))
    probe = Node(op, "probe", names, ["p"], attrs)
    arrays = [m.arrays[n] if n else None for n in names]
    try:
        acc = accumulate(Call(probe, arrays, attributes(probe)))
    except Exception:  # the window does not fit: no such node
        return
    spread = float(np.abs(acc).mean()) + 1.0 if acc.size else 1.0
    mult = (m.scale() * 30.0 / spread * m.rng.uniform(0.3, 3.0, channels)).clip(0, 3.3e38)
    same = m.values("u8", lambda a: a.shape == acc.shape)
    residual = m.choice(same) if same and m.chance(0.6) else ""
    if op.endswith("_dyadic"):
        scale, power = dyadic(mult.clip(0, 2.0**29))
        names[2], names[3] = m.constant("m", scale), m.constant("e", power)
        if residual:
            r_m, r_e = dyadic(min(abs(m.scale()), 2.0**29))
            attrs |= {"r_zero": m.zeros[residual], "r_m": int(r_m), "r_e": int(r_e)}
            names[5] = residual
    else:
        names[2] = m.constant("s", mult.astype(np.float32))
        if m.chance(0.7):
            names[3] = m.constant("b", m.rng.normal(0, 30, channels).astype(np.float32))
        if m.chance(0.15):
            attrs = {k: v for k, v in attrs.items() if k not in ("lo", "hi", "zero")} | {"out": "f32"}
            attrs |= {"flo": -20.0} if m.chance(0.5) else {}
            attrs |= {"fhi": float(np.float32(33.3))} if m.chance(0.5) else {}
            floats = m.values("f32", lambda a: a.shape == acc.shape)
            names[5] = m.choice(floats) if floats and m.chance(0.7) else ""
        elif residual:
            names[5] = residual
            attrs |= {"r_zero": m.zeros[residual], "r_mult": m.scale()}
    m.add(op, names, attrs, zero=zero)


def qconv(m: Maker) -> None:
    x = m.image()
    if not x:
        return
    c = m.arrays[x].shape[3]
    kind = m.integer(0, 9)
    kernel = m.choice(((1, 1), (1, 1), (3, 3), (3, 3), (5, 5), (1, 3), (7, 7), (2, 2), (3, 1), (4, 5)))
    groups, outputs = 1, m.choice(CHANNELS)
    if kind < 3:
        groups, outputs = c, c * m.choice((1, 1, 1, 2, 3))
        kernel = m.choice(((3, 3), (3, 3), (5, 5), (7, 7), (1, 3), (2, 2), (1, 1)))
    elif kind < 5:
        groups = m.choice([g for g in range(1, c + 1) if c % g == 0])
        outputs = groups * m.integer(1, max(1, 64 // groups))
    elif kind == 5:
        outputs = c
    strides = [m.choice((1, 1, 1, 2, 3)), m.choice((1, 1, 1, 2, 3))]
    dilations = [m.choice((1, 1, 1, 1, 2, 3)), m.choice((1, 1, 1, 1, 2, 3))]
    pads = [m.integer(0, 3) for _ in range(4)]
    if m.chance(0.6):  # same size: residuals and long chains become possible
        strides = [1, 1] if m.chance(0.7) else [2, 2]
        reach = [(k - 1) * d for k, d in zip(kernel, dilations, strict=True)]
        pads = [reach[0] // 2, reach[1] // 2, reach[0] - reach[0] // 2, reach[1] - reach[1] // 2]
    w = m.constant("w", weights(m, (outputs, *kernel, c // groups)))
    window = {"strides": strides, "pads": pads, "dilations": dilations, "groups": groups}
    _tail(m, "qconv_dyadic" if m.chance(0.25) else "qconv", x, w, window, outputs)


def qlinear(m: Maker) -> None:
    x = m.pick("u8", lambda a: a.ndim >= 1)
    if not x:
        return
    outputs = m.choice(CHANNELS)
    w = m.constant("w", weights(m, (outputs, m.arrays[x].shape[-1])))
    _tail(m, "qlinear_dyadic" if m.chance(0.25) else "qlinear", x, w, {}, outputs)


def qmatmul(m: Maker) -> None:
    a = m.pick("u8", lambda v: v.ndim >= 2)
    if not a:
        return
    depth = m.arrays[a].shape[-1]
    plain = m.values("u8", lambda v: v.ndim >= 2 and v.shape[-2] == depth)
    turned = m.values("u8", lambda v: v.ndim >= 2 and v.shape[-1] == depth)
    trans = bool(turned) and (not plain or m.chance(0.5))
    options = turned if trans else plain
    if not options:
        return
    b = m.choice(options)
    size = 100.0 * 100.0 * max(1.0, depth) ** 0.5
    zero = m.zero()
    attrs = {"a_zero": m.zeros[a], "b_zero": m.zeros[b], "mult": float(np.float32(m.scale() * 50 / size))}
    attrs |= {"trans_b": int(trans)}
    attrs |= {"out": "f32"} if m.chance(0.2) else {"zero": zero, **m.clip(zero)}
    m.add("qmatmul", [a, b], attrs, zero=zero)


def _partner(m: Maker, a: str) -> str:
    """A second operand of the same shape, or one that broadcasts."""
    shape = m.arrays[a].shape

    def fits(v: Array) -> bool:
        try:
            return len(np.broadcast_shapes(v.shape, shape)) <= 4
        except ValueError:
            return False

    return m.choice(m.values("u8", fits) or [a])


def qadd(m: Maker) -> None:
    a = m.pick("u8")
    if not a:
        return
    b, zero = _partner(m, a), m.zero()
    attrs = {"a_zero": m.zeros[a], "b_zero": m.zeros[b], "a_mult": m.scale(), "b_mult": m.scale(), "zero": zero}
    if m.chance(0.3):
        attrs["offset"] = float(np.float32(min(m.scale(), 1e6) * m.choice((0.0, 1.0, -100.0, 300.0))))
    m.add("qadd", [a, b], {**attrs, **m.clip(zero)}, zero=zero)


def multiplier(m: Maker, scale: float) -> tuple[int, int]:
    """m and e of a random multiplier near `scale`, now and then 0 or a power of two (exact halves)."""
    if m.chance(0.1):
        return m.choice(((0, 62), (1 << 30, 31), (1 << 30, 32)))
    mantissa, exponent = dyadic(min(abs(scale), 2.0**29))  # above, there is no multiplier
    return int(mantissa), int(exponent)


def qadd_dyadic(m: Maker) -> None:
    a = m.pick("u8")
    if not a:
        return
    b, zero = _partner(m, a), m.zero()
    attrs = {"a_zero": m.zeros[a], "b_zero": m.zeros[b], "zero": zero}
    attrs["a_m"], attrs["a_e"] = multiplier(m, m.scale())
    attrs["b_m"], attrs["b_e"] = multiplier(m, m.scale())
    m.add("qadd_dyadic", [a, b], {**attrs, **m.clip(zero)}, zero=zero)


def qmean_dyadic(m: Maker) -> None:
    x = m.pick("u8", lambda a: a.ndim == 4 and a.shape[1] * a.shape[2] > 0)
    if x:
        zero, shape = m.zero(), m.arrays[x].shape
        attrs = {"x_zero": m.zeros[x], "count": shape[1] * shape[2], "zero": zero}
        attrs["m"], attrs["e"] = multiplier(m, m.scale() / attrs["count"])
        m.add("qmean_dyadic", [x], {**attrs, **m.clip(zero)}, zero=zero)


def qmul(m: Maker) -> None:
    a = m.pick("u8")
    if not a:
        return
    b, zero = _partner(m, a), m.zero()
    attrs = {"a_zero": m.zeros[a], "b_zero": m.zeros[b], "mult": float(np.float32(m.scale() / 100)), "zero": zero}
    m.add("qmul", [a, b], {**attrs, **m.clip(zero)}, zero=zero)


def pool_window(m: Maker) -> dict[str, Any]:
    kernel = [m.choice((1, 2, 2, 3, 3, 5, 7)), m.choice((1, 2, 2, 3, 3, 5, 7))]
    if m.chance(0.7):
        kernel[1] = kernel[0]
    pads = [m.integer(0, min(2, kernel[i % 2] - 1)) for i in range(4)]
    strides = [m.choice((1, 2, 2, 3)), m.choice((1, 2, 2, 3))]
    return {"kernel": kernel, "strides": strides, "pads": pads, "ceil": m.integer(0, 1)}


def qavgpool(m: Maker) -> None:
    x = m.image()
    if x:
        zero = m.zero()
        attrs = {**pool_window(m), "count_include_pad": m.integer(0, 1), "x_zero": m.zeros[x], "mult": m.scale()}
        m.add("qavgpool", [x], {**attrs, "zero": zero, **m.clip(zero)}, zero=zero)


def qmean(m: Maker) -> None:
    x = m.image()
    if x:
        zero = m.zero()
        m.add("qmean", [x], {"x_zero": m.zeros[x], "mult": m.scale(), "zero": zero, **m.clip(zero)}, zero=zero)


def maxpool(m: Maker) -> None:
    x = m.image()
    if x:
        attrs = pool_window(m)
        if m.chance(0.3):
            attrs |= {"dilations": [m.integer(1, 2), m.integer(1, 2)]}
        m.add("maxpool", [x], attrs)


def lut(m: Maker) -> None:
    x = m.pick("u8", lambda a: a.ndim >= 1)
    if not x:
        return
    zero, kind = m.zero(), m.integer(0, 3)
    if kind == 0:
        table = m.rng.normal(0, 2, 256).astype(np.float32)
    elif kind == 1:
        table = m.rng.integers(0, 256, (m.arrays[x].shape[-1], 256)).astype(np.uint8)
    elif kind == 2:
        table = make_table(np.tanh, 0.03, m.zeros[x], 1 / 100, zero)
    else:
        table = m.rng.integers(0, 256, 256).astype(np.uint8)
    m.add("lut", [x, m.constant("t", table)], zero=zero)


def quantize(m: Maker) -> None:
    x = m.pick("f32")
    if not x:
        return
    finite = np.where(np.isfinite(m.arrays[x]), m.arrays[x], 0)
    peak = float(np.abs(finite).max(initial=0)) or 1.0
    zero = m.zero()
    scale = float(np.float32(max(peak / m.choice((20, 100, 127, 300)), 1e-30)))
    m.add("quantize", [x], {"scale": scale, "zero": zero, **m.clip(zero)}, zero=zero)


def dequantize(m: Maker) -> None:
    q = m.pick("u8")
    if q:
        m.add("dequantize", [q], {"scale": float(np.float32(m.rng.uniform(1e-3, 0.3))), "zero": m.zeros[q]})


def argmax(m: Maker) -> None:
    x = m.pick("u8", lambda a: a.ndim >= 1)
    if x and m.chance(0.3):
        rank = m.arrays[x].ndim
        m.add("argmax", [x], {"axis": m.integer(-rank, rank - 1), "keepdims": m.integer(0, 1)})


INTEGER = (
    [qconv] * 8
    + [qlinear] * 3
    + [qmatmul] * 2
    + [qadd] * 3
    + [qadd_dyadic] * 2
    + [qmean_dyadic]
    + [qmul] * 2
    + [qavgpool, qmean, maxpool, maxpool]
)
INTEGER += [lut, lut, quantize, dequantize, argmax]
