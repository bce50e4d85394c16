"""Random nodes of the float family: close to the reference, bit for bit equal between instruction sets."""

from __future__ import annotations

from typing import Any

import numpy as np

from netsuke.formats import MINIFLOATS, f32_to_bf16
from netsuke.formats.minifloat import finite_codes
from netsuke.program.opset import ALPHA, ARITHMETIC, BETA, COMPARISONS, LOGICAL, REDUCTIONS, UNARY

from .integer_ops import pool_window
from .maker import CHANNELS, Array, Maker

# Smooth enough that a rounding error in front of them stays one: a step function would turn it into a whole 1.
SMOOTH = "none identity relu clip leaky_relu elu sigmoid hard_sigmoid hard_swish silu tanh gelu gelu_tanh mish softplus"
ACTIVATIONS = (*SMOOTH.split(" "), "sin", "cos", "abs", "neg", "erf")


def normal(m: Maker, shape: tuple[int, ...], fan: int = 1) -> Array:
    return (m.rng.normal(0, 1, shape) / max(1, fan) ** 0.5).astype(np.float32)


def parameters(m: Maker, fn: str) -> dict[str, float]:
    """alpha and beta of a function, or nothing where the default is to be used."""
    attrs: dict[str, float] = {}
    if fn in ALPHA and m.chance(0.7):
        attrs["alpha"] = -1.5 if fn == "clip" else 0.25
    if fn in BETA and m.chance(0.7):
        attrs["beta"] = 1.25 if fn == "clip" else 0.375
    return attrs


def _activation(m: Maker) -> dict[str, Any]:
    fn = m.choice(ACTIVATIONS) if m.chance(0.4) else m.choice(("none", "relu", "clip", "silu"))
    return {"act": fn, **parameters(m, fn)}


def _quantized(m: Maker) -> dict[str, Any]:
    if m.chance(0.8):
        return {}
    return {"quant_scale": float(np.float32(m.rng.uniform(0.002, 0.1))), "quant_zero": m.zero()}


def _weights(m: Maker, shape: tuple[int, ...], fan: int) -> str:
    array = normal(m, shape, fan)
    if m.chance(0.8):
        return m.constant("w", array)
    name = m.constant("w", array)  # the maker computes with rounded weights, the program holds their 16 bits
    bits = f32_to_bf16(array)
    m.program.constants[name], m.dtypes[name] = bits, "bf16"
    m.arrays[name] = (bits.astype(np.uint32) << 16).view(np.float32)
    m.program.bf16.add(name)
    return name


def _residual(m: Maker, shape: tuple[int, ...]) -> str:
    same = m.values("f32", lambda a: a.shape == shape)
    return m.choice(same) if same and m.chance(0.5) else ""


def conv(m: Maker) -> None:
    x = m.image("f32")
    if not x:
        return
    n, h, wide, c = m.arrays[x].shape
    kernel = m.choice(((1, 1), (3, 3), (3, 3), (5, 5), (1, 3), (2, 2)))
    groups, outputs = 1, m.choice(CHANNELS[:18])
    kind = m.integer(0, 4)
    if kind == 0:
        groups, outputs = c, c * m.choice((1, 1, 2))
    elif kind == 1:
        groups = m.choice([g for g in range(1, c + 1) if c % g == 0])
        outputs = groups * m.integer(1, 4)
    dilations = [m.choice((1, 1, 2)), m.choice((1, 1, 2))]
    strides = [m.choice((1, 1, 2)), m.choice((1, 1, 3))]
    pads = [m.integer(0, 2) for _ in range(4)]
    residual = ""
    if m.chance(0.5):
        strides = [1, 1]
        reach = [(k - 1) * d for k, d in zip(kernel, dilations, strict=True)]
        pads = [reach[0] // 2, reach[1] // 2, reach[0] - reach[0] // 2, reach[1] - reach[1] // 2]
        residual = _residual(m, (n, h, wide, outputs))
    w = _weights(m, (outputs, *kernel, c // groups), kernel[0] * kernel[1] * (c // groups))
    bias = m.constant("b", normal(m, (outputs,))) if m.chance(0.7) else ""
    attrs = {"strides": strides, "pads": pads, "dilations": dilations, "groups": groups, **_activation(m)}
    m.add("conv", [x, w, bias, residual], attrs)


def conv_transpose(m: Maker) -> None:
    x = m.image("f32")
    if not x:
        return
    c = m.arrays[x].shape[3]
    groups = m.choice([g for g in range(1, c + 1) if c % g == 0]) if m.chance(0.3) else 1
    kernel = m.choice(((2, 2), (3, 3), (4, 4), (1, 2)))
    outputs = m.integer(1, 9)
    strides = [m.integer(1, 3), m.integer(1, 3)]
    w = m.constant("w", normal(m, (c, *kernel, outputs), kernel[0] * kernel[1] * c // groups))
    bias = m.constant("b", normal(m, (outputs * groups,))) if m.chance(0.7) else ""
    attrs = {
        "strides": strides,
        "pads": [m.integer(0, 1) for _ in range(4)],
        "dilations": [m.integer(1, 2), 1],
        "groups": groups,
        "output_padding": [m.integer(0, s - 1) for s in strides],
        **_activation(m),
    }
    m.add("conv_transpose", [x, w, bias], attrs)


def linear(m: Maker) -> None:
    x = m.pick("f32", lambda a: a.ndim >= 1)
    if not x:
        return
    shape, outputs = m.arrays[x].shape, m.choice(CHANNELS)
    w = _weights(m, (outputs, shape[-1]), shape[-1])
    bias = m.constant("b", normal(m, (outputs,))) if m.chance(0.7) else ""
    m.add("linear", [x, w, bias, _residual(m, (*shape[:-1], outputs))], _activation(m))


def wlinear(m: Maker) -> None:
    x = m.pick("f32", lambda a: a.ndim >= 1 and a.shape[-1] >= 1)
    if not x:
        return
    depth, outputs = m.arrays[x].shape[-1], m.choice(CHANNELS)
    group = m.choice((32, 64, depth, depth + 5))
    groups = (outputs, -(-depth // group))
    attrs: dict[str, Any] = {"group": group, "format": "int", "compute": m.choice(("f32", "bf16", "s8"))}
    zero = ""
    if m.chance(0.3):
        attrs |= {"format": m.choice(list(MINIFLOATS)), "compute": m.choice(("f32", "bf16"))}
        codes = m.rng.choice(finite_codes(MINIFLOATS[attrs["format"]]), (outputs, depth))
    else:
        half = 2 ** (m.choice((1, 2, 3, 4, 5, 6, 8)) - 1)
        codes = m.rng.integers(-half, half, (outputs, depth)).astype(np.int8)
        if m.chance(0.4):
            zero = m.constant("z", m.rng.integers(-half, half, groups).astype(np.int8))
    peak = float(np.abs(codes.astype(np.int16)).max(initial=1)) if attrs["format"] == "int" else 8.0
    scale = (m.rng.normal(0, 1, groups) / (max(1.0, peak) * max(1, depth) ** 0.5)).astype(np.float32)
    bias = m.constant("b", normal(m, (outputs,))) if m.chance(0.5) else ""
    m.add("wlinear", [x, m.constant("w", codes), m.constant("s", scale), zero, bias], attrs)


def matmul(m: Maker) -> None:
    a = m.pick("f32", lambda v: v.ndim >= 2)
    if not a:
        return
    depth = m.arrays[a].shape[-1]
    plain = m.values("f32", lambda v: v.ndim >= 2 and v.shape[-2] == depth)
    turned = m.values("f32", lambda v: v.ndim >= 2 and v.shape[-1] == depth)
    trans = bool(turned) and (not plain or m.chance(0.5))
    if turned if trans else plain:
        attrs = {"trans_b": int(trans), "alpha": float(np.float32(1 / max(1, depth) ** 0.5))}
        attrs["compute"] = m.choice(("f32", "f32", "bf16"))
        m.add("matmul", [a, m.choice(turned if trans else plain)], attrs)


def unary(m: Maker) -> None:
    fn = m.choice(UNARY)
    x = m.pick("bool" if fn == "not" else "f32")
    if not x:
        return
    if fn in ("log", "sqrt", "reciprocal"):  # keep away from poles, where a tolerance means nothing
        positive = m.add("unary", [x], {"fn": "softplus"})
        shifted = (
            m.add("binary", [positive[0], m.constant("o", np.float32([0.125]))], {"fn": "add"}) if positive else []
        )
        if not shifted:
            return
        x = shifted[0]
    extra = _quantized(m) if fn not in ("not", "isnan") else {}
    m.add("unary", [x], {"fn": fn, **parameters(m, fn), **extra}, zero=extra.get("quant_zero"))


def prelu(m: Maker) -> None:
    x = m.pick("f32", lambda a: a.ndim >= 1)
    if x:
        size = m.choice((1, m.arrays[x].shape[-1]))
        m.add("prelu", [x, m.constant("p", normal(m, (size,)))])


def binary(m: Maker) -> None:
    fn = m.choice(ARITHMETIC + LOGICAL + COMPARISONS)
    dtype = "bool" if fn in LOGICAL else "f32"
    a = m.pick(dtype)
    if not a:
        return
    shape = m.arrays[a].shape

    def fits(v: Array) -> bool:
        try:
            return len(np.broadcast_shapes(v.shape, shape)) <= 5
        except ValueError:
            return False

    b = m.choice(m.values(dtype, fits) or [a])
    if fn in ("div", "pow", "mod"):  # sane operands: no division by nearly 0, no power of a negative number
        b = m.constant("d", np.asarray(m.rng.uniform(0.5, 2.0, shape[-1:]), np.float32))
        if fn == "pow":
            positive = m.add("unary", [a], {"fn": "sigmoid"})
            if not positive:
                return
            a = positive[0]
    extra = _quantized(m) if fn in ARITHMETIC else {}
    m.add("binary", [a, b], {"fn": fn, **extra}, zero=extra.get("quant_zero"))


def where(m: Maker) -> None:
    c = m.pick("bool")
    if c:
        same = m.values("f32", lambda a: a.shape == m.arrays[c].shape)
        if same:
            m.add("where", [c, m.choice(same), m.choice(same)])


def cast(m: Maker) -> None:
    x = m.pick(m.choice(("f32", "u8", "bool", "i64")))
    if x:
        m.add("cast", [x], {"to": m.choice(("f32", "f32", "i64", "bool", "u8", "i32", "s8"))}, zero=m.zero())


def softmax(m: Maker) -> None:
    x = m.pick("f32", lambda a: a.ndim >= 1)
    if x:
        extra = _quantized(m)
        rank = m.arrays[x].ndim
        axis = m.choice((-1, m.integer(-rank, rank - 1)))
        m.add("softmax", [x], {"axis": axis, "log": m.integer(0, 1), **extra}, zero=extra.get("quant_zero"))


def layernorm(m: Maker) -> None:
    x = m.pick("f32", lambda a: a.ndim >= 1)
    if not x:
        return
    extra = _quantized(m)
    axis = m.choice((-1, m.integer(0, m.arrays[x].ndim - 1)))
    inner = m.arrays[x].shape[axis:]
    gamma = m.constant("g", normal(m, inner)) if m.chance(0.7) else ""
    beta = m.constant("h", normal(m, inner)) if m.chance(0.7) else ""
    m.add("layernorm", [x, gamma, beta], {"axis": axis, "eps": 1e-3, **extra}, zero=extra.get("quant_zero"))


def reduce(m: Maker) -> None:
    fn = m.choice(REDUCTIONS)
    x = m.pick("bool" if fn in ("any", "all") else "f32", lambda a: a.ndim >= 1)
    if x:
        rank = m.arrays[x].ndim
        axes = [int(v) for v in m.rng.permutation(rank)[: m.integer(0, rank)]]
        m.add("reduce", [x], {"fn": fn, "axes": axes, "keepdims": m.integer(0, 1)})


def argmax(m: Maker) -> None:
    x = m.pick("f32", lambda a: a.ndim >= 1)
    if x and m.chance(0.5):
        rank = m.arrays[x].ndim
        m.add("argmax", [x], {"axis": m.integer(-rank, rank - 1), "keepdims": m.integer(0, 1)})


def pool(m: Maker) -> None:
    x = m.image("f32")
    if not x:
        return
    if m.chance(0.5):
        m.add("maxpool", [x], pool_window(m))
    else:
        m.add("avgpool", [x], {**pool_window(m), "count_include_pad": m.integer(0, 1)})


def recurrent(m: Maker) -> None:
    x = m.pick("f32", lambda a: a.ndim == 3 and a.shape[0] <= 20)
    if not x:
        return
    _, batch, inputs = m.arrays[x].shape
    op, gates = m.choice((("lstm", 4), ("gru", 3)))
    hidden, direction = m.integer(1, 17), m.choice(("forward", "reverse", "bidirectional"))
    d = 2 if direction == "bidirectional" else 1
    w = m.constant("w", normal(m, (d, gates * hidden, inputs), inputs))
    r = m.constant("r", normal(m, (d, gates * hidden, hidden), hidden))
    b = m.constant("b", normal(m, (d, 2 * gates * hidden))) if m.chance(0.7) else ""
    states = 2 if op == "lstm" else 1
    state = [m.constant("h", normal(m, (d, batch, hidden))) if m.chance(0.4) else "" for _ in range(states)]
    attrs: dict[str, Any] = {"hidden": hidden, "direction": direction}
    if op == "gru":
        attrs["linear_before_reset"] = m.integer(0, 1)
    m.add(op, [x, w, r, b, "", *state], attrs, outputs=m.integer(1, 3 if op == "lstm" else 2))


FLOAT = [conv] * 4 + [linear] * 3 + [wlinear] * 2 + [matmul] * 2 + [unary] * 6 + [binary] * 5
FLOAT += [conv_transpose, prelu, where, where, cast]
FLOAT += [softmax, layernorm, reduce, reduce, argmax, pool, pool, recurrent, recurrent]
