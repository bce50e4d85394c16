"""Rules of docs/format.md that involve more than one attribute or a constant's shape, one function per operator.

A check gets a `NodeView` (inputs, attributes and dtypes are already sound) and yields (what is wrong, got, allowed).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np

from netsuke.formats import ACC_LIMIT, MINIFLOATS
from netsuke.formats.minifloat import finite_codes
from netsuke.formats.weight_only import S8_PRODUCT, WEIGHT_BLOCK
from netsuke.program import opset
from netsuke.program.model import AttrValue, Node

Finding = tuple[str, object, str]
Array = np.ndarray[Any, Any]


@dataclass(frozen=True)
class NodeView:
    """A node with its attributes filled in, the dtypes of its inputs and the constants of the file."""

    node: Node
    attrs: dict[str, AttrValue]
    dtypes: list[str]
    constants: dict[str, Array]

    def constant(self, index: int) -> Array | None:
        """The constant at input `index`, or None when that input is absent or not a constant."""
        return self.constants.get(self.node.inputs[index])

    def number(self, key: str) -> float:
        value = self.attrs[key]
        assert isinstance(value, (int, float, np.integer, np.floating))
        return float(value)

    def number_or(self, key: str, fallback: float) -> float:
        return self.number(key) if key in self.attrs else fallback


def _shape(view: NodeView, index: int, name: str, wanted: tuple[int, ...]) -> Iterator[Finding]:
    array = view.constant(index)
    if array is not None and array.shape != wanted:
        yield f"wrong shape of {name}", array.shape, str(wanted)


def _finite(view: NodeView, index: int, name: str, *, low: float | None = None) -> Iterator[Finding]:
    array = view.constant(index)
    if array is None or not array.size:
        return
    if not np.isfinite(array).all():
        yield f"{name} holds NaN or infinity", "", "finite numbers"
    elif low is not None and float(array.min()) < low:
        yield f"{name} holds a number that is too small", array.min(), f">= {low:g}"


def _code_clip(view: NodeView) -> Iterator[Finding]:
    if view.number("lo") > view.number("hi"):
        yield "lo is above hi", f"{view.attrs['lo']}, {view.attrs['hi']}", "lo <= hi"


def _weights(view: NodeView, rank: int) -> tuple[int, ...] | None:
    array = view.constant(1)
    return array.shape if array is not None and array.ndim == rank and min(array.shape) >= 1 else None


def _weight_shape(view: NodeView, rank: int, channel_axis: int = 0) -> Iterator[Finding]:
    shape = _weights(view, rank)
    if shape is None:
        array = view.constant(1)
        yield "wrong shape of w", None if array is None else array.shape, f"rank {rank}, no dimension 0"
    elif "groups" in view.attrs and shape[channel_axis] % int(view.number("groups")):
        yield "channels are not divisible by groups", f"{shape[channel_axis]}, {view.attrs['groups']}", ""


def _qreal(view: NodeView, rank: int) -> Iterator[Finding]:
    yield from _weight_shape(view, rank)
    yield from _code_clip(view)
    shape = _weights(view, rank)
    if shape is None:
        return
    for index, name in ((2, "mult"), (3, "bias"), (4, "acc_bias")):
        yield from _shape(view, index, name, (shape[0],))
    yield from _finite(view, 2, "mult", low=0)
    yield from _finite(view, 3, "bias")
    out = str(view.attrs["out"])
    if view.dtypes[5] not in ("", out):
        yield "the residual must have the dtype of the output", view.dtypes[5], out
    if out == "u8" and ("flo" in view.attrs or "fhi" in view.attrs):
        yield "flo and fhi belong to f32 output", "u8 output", ""
    if view.number_or("flo", -np.inf) > view.number_or("fhi", np.inf):
        yield "flo is above fhi", "", "flo <= fhi"


def _qdyadic(view: NodeView, rank: int) -> Iterator[Finding]:
    yield from _weight_shape(view, rank)
    yield from _code_clip(view)
    shape = _weights(view, rank)
    if shape is None:
        return
    for index, name in ((2, "m"), (3, "e"), (4, "acc_bias")):
        yield from _shape(view, index, name, (shape[0],))
    m, e = view.constant(2), view.constant(3)
    if m is not None and ((m != 0) & (m < 2**30)).any():
        yield "m is neither 0 nor in [2^30, 2^31)", "", ""
    if e is not None and e.size and (e.min() < 1 or e.max() > 62):
        yield "e is out of range", f"{e.min()}..{e.max()}", "1..62"
    if 0 < view.number("r_m") < 2**30:
        yield "r_m is neither 0 nor in [2^30, 2^31)", view.attrs["r_m"], ""


def _pool(view: NodeView) -> Iterator[Finding]:
    kernel, pads = view.attrs["kernel"], view.attrs["pads"]
    dilations = view.attrs.get("dilations", [1, 1])
    assert isinstance(kernel, list)
    assert isinstance(pads, list)
    assert isinstance(dilations, list)
    for axis in (0, 1):
        reach = (int(kernel[axis]) - 1) * int(dilations[axis]) + 1
        if max(int(pads[axis]), int(pads[axis + 2])) >= reach:
            yield (
                "padding is as large as the window",
                f"pads {pads}, window {reach}",
                "pads < (kernel - 1) * dilation + 1",
            )
    if "lo" in view.attrs:
        yield from _code_clip(view)


def _activation(view: NodeView, key: str = "act") -> Iterator[Finding]:
    fn = str(view.attrs[key])
    for name, takes in (("alpha", opset.ALPHA), ("beta", opset.BETA)):
        if name in view.attrs and fn not in takes:
            yield f"{fn} takes no {name}", view.attrs[name], ""
    if fn == "clip" and view.number_or("alpha", -np.inf) > view.number_or("beta", np.inf):
        yield "clip: alpha is above beta", f"{view.attrs['alpha']}, {view.attrs['beta']}", "alpha <= beta"


def _conv(view: NodeView) -> Iterator[Finding]:
    yield from _weight_shape(view, 4)
    yield from _activation(view)
    shape = _weights(view, 4)
    if shape:
        yield from _shape(view, 2, "bias", (shape[0],))


def _conv_transpose(view: NodeView) -> Iterator[Finding]:
    yield from _weight_shape(view, 4)
    yield from _activation(view)
    shape = _weights(view, 4)
    if shape:
        yield from _shape(view, 2, "bias", (shape[3] * int(view.number("groups")),))
    extras: Any = view.attrs["output_padding"]
    strides: Any = view.attrs["strides"]
    for extra, stride in zip(extras, strides, strict=True):
        if extra >= stride:
            yield "output_padding is not below the stride", f"{extra}, {stride}", ""


def _linear(view: NodeView) -> Iterator[Finding]:
    yield from _weight_shape(view, 2)
    yield from _activation(view)
    shape = _weights(view, 2)
    if shape:
        yield from _shape(view, 2, "bias", (shape[0],))


def _wlinear(view: NodeView) -> Iterator[Finding]:
    """Groups, formats and the exactness of the sums of a weight-only layer (numerics.md section 12)."""
    yield from _weight_shape(view, 2)
    shape, group = _weights(view, 2), int(view.number("group"))
    if shape is None:
        return
    if group % WEIGHT_BLOCK and group < shape[1]:
        yield "group is not possible", group, f"a multiple of {WEIGHT_BLOCK}, or the whole row ({shape[1]} or more)"
    groups = (shape[0], -(-shape[1] // group))
    yield from _shape(view, 2, "scale", groups)
    yield from _finite(view, 2, "scale")
    yield from _shape(view, 3, "zero", groups)
    yield from _shape(view, 4, "bias", (shape[0],))
    form, integers = str(view.attrs["format"]), view.attrs["format"] == "int"
    if view.dtypes[1] != ("s8" if integers else "u8"):
        yield f"wrong dtype of w for format {form}", view.dtypes[1], "s8 for int, u8 for floats"
    elif not integers:
        codes = view.constant(1)
        if codes is not None and not np.isin(codes, finite_codes(MINIFLOATS[form])).all():
            yield f"w holds codes that are no finite numbers of {form}", "", ""
    if not integers and (view.node.inputs[3] or view.attrs["compute"] == "s8"):
        yield f"{form} weights take no zero point and compute in f32 or bf16", "", ""
    if view.attrs["compute"] == "s8" and min(group, shape[1]) * S8_PRODUCT > ACC_LIMIT:
        yield "the sum of a group can leave int32", min(group, shape[1]), f"{ACC_LIMIT // S8_PRODUCT} weights a group"


def _quantized_output(view: NodeView) -> Iterator[Finding]:
    if ("quant_scale" in view.attrs) != ("quant_zero" in view.attrs):
        yield "quant_scale and quant_zero belong together", "one of them", "both or none"


def _unary(view: NodeView) -> Iterator[Finding]:
    fn = str(view.attrs["fn"])
    yield from _activation(view, "fn")
    yield from _quantized_output(view)
    wanted = "bool" if fn == "not" else "f32"
    if view.dtypes[0] != wanted:
        yield f"wrong dtype for {fn}", view.dtypes[0], wanted
    if fn in ("not", "isnan") and "quant_scale" in view.attrs:
        yield f"the output of {fn} cannot be quantized", "", ""


def _binary(view: NodeView) -> Iterator[Finding]:
    fn, dtype = str(view.attrs["fn"]), view.dtypes[0]
    yield from _quantized_output(view)
    if (fn in opset.LOGICAL) != (dtype == "bool") and not (fn == "equal" and dtype == "bool"):
        yield f"wrong dtype for {fn}", dtype, "bool" if fn in opset.LOGICAL else "f32, i32, i64"
    if "quant_scale" in view.attrs and (dtype != "f32" or fn not in opset.ARITHMETIC):
        yield "only f32 arithmetic can be quantized", f"{fn} of {dtype}", ""


def _reduce(view: NodeView) -> Iterator[Finding]:
    fn, dtype = str(view.attrs["fn"]), view.dtypes[0]
    allowed = ["bool"] if fn in ("any", "all") else ["f32"]
    if fn in ("sum", "max", "min", "prod"):
        allowed.append("i64")
    if dtype not in allowed:
        yield f"wrong dtype for {fn}", dtype, ", ".join(allowed)


def _lut(view: NodeView) -> Iterator[Finding]:
    table = view.constant(1)
    if table is not None and (table.ndim not in (1, 2) or table.shape[-1] != 256 or not table.size):
        yield "wrong shape of table", table.shape, "(256,) or (C, 256)"


def _prelu(view: NodeView) -> Iterator[Finding]:
    slope = view.constant(1)
    if slope is not None and (slope.ndim != 1 or not slope.size):
        yield "wrong shape of slope", slope.shape, "(C,) or (1,)"


def _layernorm(view: NodeView) -> Iterator[Finding]:
    yield from _quantized_output(view)
    gamma, beta = view.constant(1), view.constant(2)
    if gamma is not None and beta is not None and gamma.shape != beta.shape:
        yield "gamma and beta have different shapes", f"{gamma.shape}, {beta.shape}", ""


def _recurrent(view: NodeView, gates: int) -> Iterator[Finding]:
    hidden = int(view.number("hidden"))
    directions = 2 if view.attrs["direction"] == "bidirectional" else 1
    if view.node.inputs[4]:
        yield 'seq_lens must be absent ("")', view.node.inputs[4], ""
    w = view.constant(1)
    if w is not None and (w.ndim != 3 or w.shape[:2] != (directions, gates * hidden) or w.shape[2] < 1):
        yield "wrong shape of w", w.shape, f"({directions}, {gates * hidden}, I)"
    yield from _shape(view, 2, "r", (directions, gates * hidden, hidden))
    yield from _shape(view, 3, "b", (directions, 2 * gates * hidden))


def _dyadic_clip(view: NodeView, *keys: str) -> Iterator[Finding]:
    yield from _code_clip(view)
    for key in keys:
        if 0 < view.number(key) < 2**30:
            yield f"{key} is neither 0 nor in [2^30, 2^31)", view.attrs[key], ""


def _transpose(view: NodeView) -> Iterator[Finding]:
    perm = view.attrs["perm"]
    assert isinstance(perm, list)
    if sorted(perm) != list(range(len(perm))) or len(perm) > 8:
        yield "perm is not a permutation", perm, ""


def _resize(view: NodeView) -> Iterator[Finding]:
    sizes, scales = view.node.inputs[1:3]
    if bool(sizes) == bool(scales):
        yield "exactly one of sizes and scales must be given", f"sizes {sizes!r}, scales {scales!r}", ""
    for index, name in ((1, "sizes"), (2, "scales")):
        yield from _shape(view, index, name, (2,))
        array = view.constant(index)
        if array is not None and array.shape == (2,) and not (np.isfinite(array).all() and (array > 0).all()):
            yield f"{name} must be positive", array.tolist(), ""


def _pad(view: NodeView) -> Iterator[Finding]:
    pads, value = view.constant(1), view.constant(2)
    if pads is not None and (pads.ndim != 1 or pads.size % 2 or pads.min(initial=0) < 0):
        yield "pads must be begins and ends, none negative", pads.tolist()[:16], ""
    if value is not None and value.size != 1:
        yield "the pad value must have one element", value.shape, ""


_INTEGERS = {
    "u8": (0, 255),
    "s8": (-128, 127),
    "i32": (-(2**31), 2**31 - 1),
    "i64": (-(2**63), 2**63 - 1),
    "bool": (0, 1),
}


def _constant_of_shape(view: NodeView) -> Iterator[Finding]:
    value, dtype = view.number("value"), str(view.attrs["dtype"])
    if dtype in _INTEGERS and not (value == round(value) and _INTEGERS[dtype][0] <= value <= _INTEGERS[dtype][1]):
        yield f"value is not a number of {dtype}", value, ""


CHECKS: dict[str, Callable[[NodeView], Iterator[Finding]]] = {
    "quantize": _code_clip,
    "qconv": lambda view: _qreal(view, 4),
    "qlinear": lambda view: _qreal(view, 2),
    "qconv_dyadic": lambda view: _qdyadic(view, 4),
    "qlinear_dyadic": lambda view: _qdyadic(view, 2),
    "qmatmul": _code_clip,
    "qadd": _code_clip,
    "qadd_dyadic": lambda view: _dyadic_clip(view, "a_m", "b_m"),
    "qmul": _code_clip,
    "qmean": _code_clip,
    "qmean_dyadic": lambda view: _dyadic_clip(view, "m"),
    "qavgpool": _pool,
    "maxpool": _pool,
    "avgpool": _pool,
    "lut": _lut,
    "conv": _conv,
    "conv_transpose": _conv_transpose,
    "linear": _linear,
    "wlinear": _wlinear,
    "unary": _unary,
    "binary": _binary,
    "softmax": _quantized_output,
    "layernorm": _layernorm,
    "prelu": _prelu,
    "reduce": _reduce,
    "lstm": lambda view: _recurrent(view, 4),
    "gru": lambda view: _recurrent(view, 3),
    "transpose": _transpose,
    "resize": _resize,
    "pad": _pad,
    "constant_of_shape": _constant_of_shape,
}
