"""The operator set of .nsk version 1 as data: the one source of the tables in docs/format.md and of `verify`.

The notation of inputs and outputs is that of `netsuke.program.signature`.
"""

from __future__ import annotations

import math
from typing import Any

from netsuke.formats.minifloat import MINIFLOATS
from netsuke.program.model import AttrValue, Node
from netsuke.program.signature import ANY, MANY, REQUIRED, Attr, Operator


def _i(default: object = REQUIRED, low: int = -(2**31), high: int = 2**31 - 1) -> Attr:
    return Attr("int", default, low, high)


def _f(default: object = REQUIRED, *, positive: bool = False, low: float | None = None) -> Attr:
    return Attr("float", default, low, None, positive=positive)


def _ints(length: int | None, low: int, high: int = 2**31 - 1, default: object = REQUIRED) -> Attr:
    return Attr("ints", default, low, high, length)


def _word(*choices: str, default: object = REQUIRED) -> Attr:
    return Attr("str", default, choices=choices)


def _code(default: object = REQUIRED) -> Attr:
    return _i(default, 0, 255)


def _flag(default: int = 0) -> Attr:
    return _i(default, 0, 1)


def _words(text: str) -> tuple[str, ...]:
    return tuple(text.split(" "))


# A sum of so many codes fits 32 bits.
MOST_POSITIONS = (2**31 - 1) // 255

UNARY = _words(
    "abs ceil clip cos elu erf exp floor gelu gelu_tanh hard_sigmoid hard_swish identity leaky_relu log mish neg "
    "reciprocal relu round sigmoid sign silu sin softplus sqrt tanh not isnan"
)
ACTIVATIONS = ("none", *UNARY[:-2])  # not and isnan make bool
ARITHMETIC = _words("add sub mul div pow min max mod")
LOGICAL = _words("and or xor")
COMPARISONS = _words("equal less less_equal greater greater_equal")
REDUCTIONS = _words("mean sum max min prod l1 l2 sumsq logsumexp any all")
# The functions that take alpha (beta), with its default.
ALPHA = {"clip": -math.inf, "elu": 1.0, "leaky_relu": 0.01, "hard_sigmoid": 0.2}
BETA = {"clip": math.inf, "hard_sigmoid": 0.5}

_CLIP = {"lo": _code(0), "hi": _code(255)}
_OUT = {"zero": _code(0), **_CLIP}
_STRIDES = {"strides": _ints(2, 1, MANY), "pads": _ints(4, 0, MANY)}
_WINDOW = {**_STRIDES, "dilations": _ints(2, 1, MANY, [1, 1]), "groups": _i(1, 1)}
_BOUND = {"acc_bound": _i(REQUIRED, 0)}
_FLOAT_OUT = {"out": _word("u8", "f32", default="u8"), "flo": _f(None), "fhi": _f(None)}
_REAL = {"x_zero": _code(), **_OUT, "r_zero": _code(0), "r_mult": _f(0.0, low=0), **_FLOAT_OUT, **_BOUND}
_DYADIC = {
    "x_zero": _code(),
    **_OUT,
    "r_zero": _code(0),
    "r_m": _i(0, 0),
    "r_e": _i(62, 1, 62),
    **_BOUND,
}
_M, _E = _i(REQUIRED, 0), _i(REQUIRED, 1, 62)
_ACT = {"act": _word(*ACTIVATIONS, default="none"), "alpha": _f(None), "beta": _f(None)}
_QUANT = {"quant_scale": _f(None, positive=True), "quant_zero": _code(None)}
_POOL = {"kernel": _ints(2, 1, MANY), **_STRIDES}
_CEIL = {"ceil": _flag()}
_PAIR = {"a_zero": _code(), "b_zero": _code()}
_AXIS = {"axis": _i(REQUIRED, -8, 7)}
_RNN = {
    "hidden": _i(REQUIRED, 1),
    "direction": _word("forward", "reverse", "bidirectional", default="forward"),
}

# One-bit layers. out "bits" gives packed signs; with a second output the signs of y are packed beside it.
_BITS_OUT = {
    "channels": _i(REQUIRED, 1, 2**24),
    "out": _word("u8", "f32", "bits"),
    **_OUT,
    "r_zero": _code(0),
    "r_mult": _f(0.0, low=0),
    "levels": _word("sign", "bool", default="sign"),
}
_BITS_TAIL = (
    "mult:f32!? [{0}], bias:f32!? [{0}], slope:f32!? [{0}], shift:f32!? [{0}], r:u8|f32? as y, "
    "threshold:f32|i32!? [{0}], flip:bool!? [{0}]"
)

_REAL_TAIL = "mult:f32! [{0}], bias:f32!? [{0}], acc_bias:i32!? [{0}], r:u8|f32?"
_DYADIC_TAIL = "m:i32! [{0}], e:i32! [{0}], acc_bias:i32!? [{0}], r:u8?"
_CONV_W = "[O,kh,kw,I/groups]"

_TABLE = [
    # Integer
    ("quantize", "integer", "x:f32", "q:u8", {"scale": _f(positive=True), "zero": _code(), **_CLIP}),
    ("dequantize", "integer", "q:u8", "x:f32", {"scale": _f(positive=True), "zero": _code()}),
    (
        "qconv",
        "integer",
        f"x:u8 NHWC, w:s8! {_CONV_W}, " + _REAL_TAIL.format("O") + " as y",
        "y:u8|f32 NHWC",
        {**_WINDOW, **_REAL},
    ),
    ("qlinear", "integer", "x:u8 [...,K], w:s8! [N,K], " + _REAL_TAIL.format("N") + " as y", "y:u8|f32 [...,N]", _REAL),
    (
        "qconv_dyadic",
        "integer",
        f"x:u8 NHWC, w:s8! {_CONV_W}, " + _DYADIC_TAIL.format("O") + " as y",
        "y:u8 NHWC",
        {**_WINDOW, **_DYADIC},
    ),
    (
        "qlinear_dyadic",
        "integer",
        "x:u8 [...,K], w:s8! [N,K], " + _DYADIC_TAIL.format("N") + " as y",
        "y:u8 [...,N]",
        _DYADIC,
    ),
    (
        "qmatmul",
        "integer",
        "a:u8 [...,M,K], b:u8 [...,K,N] (trans_b: [...,N,K])",
        "y:u8|f32 [...,M,N]",
        {**_PAIR, "mult": _f(low=0), **_OUT, "trans_b": _flag(), "out": _word("u8", "f32", default="u8")},
    ),
    (
        "qadd",
        "integer",
        "a:u8, b:u8",
        "y:u8",
        {**_PAIR, "a_mult": _f(low=0), "b_mult": _f(low=0), "offset": _f(None), "zero": _code(), **_CLIP},
    ),
    (
        "qadd_dyadic",
        "integer",
        "a:u8, b:u8",
        "y:u8",
        {**_PAIR, "a_m": _M, "a_e": _E, "b_m": _M, "b_e": _E, "zero": _code(), **_CLIP},
    ),
    ("qmul", "integer", "a:u8, b:u8", "y:u8", {**_PAIR, "mult": _f(low=0), "zero": _code(), **_CLIP}),
    (
        "qavgpool",
        "integer",
        "x:u8 NHWC",
        "y:u8 NHWC",
        {
            **_POOL,
            **_CEIL,
            "count_include_pad": _flag(),
            "x_zero": _code(),
            "mult": _f(low=0),
            "zero": _code(),
            **_CLIP,
        },
    ),
    (
        "qmean",
        "integer",
        "x:u8 NHWC",
        "y:u8 [N,1,1,C]",
        {"x_zero": _code(), "mult": _f(low=0), "zero": _code(), **_CLIP},
    ),
    (
        "qmean_dyadic",
        "integer",
        "x:u8 NHWC",
        "y:u8 [N,1,1,C]",
        {"x_zero": _code(), "m": _M, "e": _E, "count": _i(REQUIRED, 1, MOST_POSITIONS), "zero": _code(), **_CLIP},
    ),
    ("lut", "integer", "x:u8, table:u8|f32! [256] or [C,256]", "y:dtype of the table", {}),
    # One bit
    ("sign_pack", "integer", "x:f32|u8 [...,C], threshold:f32|i32! [C], flip:bool!? [C]", "y:i64 [...,C/64]", {}),
    (
        "bconv",
        "integer",
        "x:i64 [N,H,W,I/64], w:i64! [O,kh,kw,I/groups/64], " + _BITS_TAIL.format("O"),
        "y:u8|f32 NHWC or i64 [N,H,W,O/64], bits?:i64 [N,H,W,O/64]",
        {**_WINDOW, "pad_value": _i(0, -1, 1), **_BITS_OUT},
    ),
    (
        "blinear",
        "integer",
        "x:i64 [...,K/64], w:i64! [N,K/64], " + _BITS_TAIL.format("N"),
        "y:u8|f32 [...,N] or i64 [...,N/64], bits?:i64 [...,N/64]",
        _BITS_OUT,
    ),
    (
        "bmatmul",
        "integer",
        "a:i64 [...,M,K/64], b:i64|f32 [...,N,K/64] or f32 [...,K,N]",
        "y:f32 [...,M,N] or i64 [...,M,N/64]",
        {
            "channels": _i(REQUIRED, 1, 2**24),
            "levels": _word("sign", "bool", default="sign"),
            "mult": _f(1.0),
            "out": _word("f32", "bits", default="f32"),
            "columns": _i(None, 1),
            "threshold": _i(0),
            "relative": _flag(),
        },
    ),
    # Float
    (
        "conv",
        "float",
        f"x:f32 NHWC, w:f32|bf16! {_CONV_W}, bias:f32!? [O], r:f32? as y",
        "y:f32 NHWC",
        {**_WINDOW, **_ACT},
    ),
    (
        "conv_transpose",
        "float",
        "x:f32 NHWC, w:f32! [I,kh,kw,O/groups], bias:f32!? [O]",
        "y:f32 NHWC",
        {**_WINDOW, "output_padding": _ints(2, 0, MANY, [0, 0]), **_ACT},
    ),
    ("linear", "float", "x:f32 [...,K], w:f32|bf16! [N,K], bias:f32!? [N], r:f32? as y", "y:f32 [...,N]", _ACT),
    (
        "wlinear",
        "float",
        "x:f32 [...,K], w:s8|u8! [N,K], scale:f32! [N,G], zero:s8!? [N,G], bias:f32!? [N]",
        "y:f32 [...,N]",
        {
            "group": _i(REQUIRED, 1),
            "format": _word("int", *MINIFLOATS, default="int"),
            "compute": _word("f32", "bf16", "s8", default="f32"),
        },
    ),
    (
        "matmul",
        "float",
        "a:f32 [...,M,K], b:f32 [...,K,N] (trans_b: [...,N,K])",
        "y:f32 [...,M,N]",
        {"trans_b": _flag(), "alpha": _f(1.0), "compute": _word("f32", "bf16", default="f32")},
    ),
    (
        "unary",
        "float",
        "x:f32|bool",
        "y:f32 (or bool/u8)",
        {"fn": _word(*UNARY), "alpha": _f(None), "beta": _f(None), **_QUANT},
    ),
    ("prelu", "float", "x:f32 [...,C], slope:f32! [C] or [1]", "y:f32", {}),
    (
        "binary",
        "float",
        "a:f32|i32|i64|bool, b:=a",
        "y:dtype of a (or bool/u8)",
        {"fn": _word(*ARITHMETIC, *LOGICAL, *COMPARISONS), **_QUANT},
    ),
    ("where", "float", "c:bool, a:any, b:=a", "y:dtype of a", {}),
    ("cast", "float", "x:any", "y:dtype `to`", {"to": _word(*ANY)}),
    ("softmax", "float", "x:f32", "y:f32 or u8", {**_AXIS, "log": _flag(), **_QUANT}),
    (
        "layernorm",
        "float",
        "x:f32, gamma:f32? [shape of x from axis on], beta:f32? [as gamma]",
        "y:f32 or u8",
        {**_AXIS, "eps": _f(low=0), **_QUANT},
    ),
    (
        "reduce",
        "float",
        "x:f32|i64|bool",
        "y:dtype of x",
        {
            "fn": _word(*REDUCTIONS),
            "axes": _ints(None, -8, 7),
            "keepdims": _flag(1),
        },
    ),
    ("argmax", "float", "x:f32|u8", "y:i64", {**_AXIS, "keepdims": _flag(1)}),
    (
        "maxpool",
        "float",
        "x:f32|u8 NHWC",
        "y:dtype of x",
        {**_POOL, "dilations": _ints(2, 1, MANY, [1, 1]), **_CEIL},
    ),
    ("avgpool", "float", "x:f32 NHWC", "y:f32 NHWC", {**_POOL, **_CEIL, "count_include_pad": _flag()}),
    (
        "lstm",
        "float",
        "x:f32 [T,B,I], w:f32! [D,4*hidden,I], r:f32! [D,4*hidden,hidden], b:f32!? [D,8*hidden], "
        'seq_lens:i32? only "", '
        "h0:f32? [D,B,hidden], c0:f32? [D,B,hidden]",
        "y:f32 [T,D,B,hidden], yh?:f32 [D,B,hidden], yc?:f32 [D,B,hidden]",
        _RNN,
    ),
    (
        "gru",
        "float",
        "x:f32 [T,B,I], w:f32! [D,3*hidden,I], r:f32! [D,3*hidden,hidden], b:f32!? [D,6*hidden], "
        'seq_lens:i32? only "", '
        "h0:f32? [D,B,hidden]",
        "y:f32 [T,D,B,hidden], yh?:f32 [D,B,hidden]",
        {**_RNN, "linear_before_reset": _flag()},
    ),
    # Movement
    ("reshape", "movement", "x:any, shape:i64~", "y:dtype of x", {"allowzero": _flag()}),
    ("transpose", "movement", "x:any", "y:dtype of x", {"perm": _ints(None, 0, 7)}),
    ("concat", "movement", "x:any*", "y:dtype of x", _AXIS),
    ("split", "movement", "x:any, sizes:i64~?", "y*:dtype of x", _AXIS),
    (
        "slice",
        "movement",
        "x:any, starts:i64~, ends:i64~, axes:i64~?, steps:i64~?",
        "y:dtype of x",
        {},
    ),
    ("gather", "movement", "x:any, indices:i64", "y:dtype of x", {"axis": _i(0, -8, 7)}),
    (
        "pad",
        "movement",
        "x:any, pads:i64~ [begins,ends], value:=x?",
        "y:dtype of x",
        {"mode": _word("constant", "reflect", "edge", default="constant")},
    ),
    ("expand", "movement", "x:any, shape:i64~", "y:dtype of x", {}),
    ("tile", "movement", "x:any, repeats:i64~", "y:dtype of x", {}),
    ("squeeze", "movement", "x:any, axes:i64~", "y:dtype of x", {}),
    ("unsqueeze", "movement", "x:any, axes:i64~", "y:dtype of x", {}),
    (
        "resize",
        "movement",
        "x:f32|u8 NHWC, sizes:i64~? [2], scales:f32~? [2]",
        "y:dtype of x",
        {
            "mode": _word("nearest", "linear", default="nearest"),
            "coord": _word("half_pixel", "align_corners", "asymmetric", "pytorch_half_pixel", default="half_pixel"),
            "nearest": _word("floor", "ceil", "round_prefer_floor", "round_prefer_ceil", default="round_prefer_floor"),
        },
    ),
    (
        "depth_to_space",
        "movement",
        "x:any NHWC",
        "y:dtype of x",
        {"block": _i(REQUIRED, 1, 2**15), "mode": _word("DCR", "CRD", default="DCR")},
    ),
    (
        "space_to_depth",
        "movement",
        "x:any NHWC",
        "y:dtype of x",
        {"block": _i(REQUIRED, 1, 2**15), "mode": _word("DCR", "CRD", default="DCR")},
    ),
    ("shape", "movement", "x:any", "y:i64", {"start": _i(0, -8, 8), "end": _i(None, -8, 8)}),
    ("range", "movement", "start:i64~, limit:i64~, delta:i64~", "y:i64", {}),
    (
        "constant_of_shape",
        "movement",
        "shape:i64~",
        "y:dtype `dtype`",
        {"value": _f(), "dtype": _word(*ANY)},
    ),
    ("identity", "movement", "x:any", "y:dtype of x", {}),
]

GROUPS = {"integer": "Integer", "float": "Float", "movement": "Movement"}
OPERATORS: dict[str, Operator] = {row[0]: Operator(*row) for row in _TABLE}


def attributes(node: Node) -> dict[str, AttrValue]:
    """The node's attributes with defaults filled in; optional ones without a default are left out when absent."""
    table = OPERATORS[node.op].attrs
    filled: dict[str, Any] = {
        key: attr.default for key, attr in table.items() if attr.default is not REQUIRED and attr.default is not None
    }
    return {**filled, **node.attrs}


def output_dtypes(node: Node, inputs: list[str]) -> list[str]:
    """dtypes of the node's outputs from the dtypes of its inputs ("" for an absent one) of a well-formed node."""
    attrs, count = attributes(node), len(node.outputs)
    fn = str(attrs.get("fn", ""))
    if node.op in ("sign_pack", "bconv", "blinear", "bmatmul"):
        first = str(attrs.get("out", "bits"))
        return ["i64" if first == "bits" else first, *["i64"] * (count - 1)]
    if "out" in attrs:
        return [str(attrs["out"])]
    if "quant_scale" in attrs:
        return ["u8"]
    if fn in COMPARISONS or (node.op == "unary" and fn in ("not", "isnan")):
        return ["bool"]
    fixed = {"to": "cast", "dtype": "constant_of_shape"}
    for key, op in fixed.items():
        if node.op == op:
            return [str(attrs[key])]
    if node.op in ("argmax", "shape", "range"):
        return ["i64"]
    if node.op in ("lut", "where"):
        return [inputs[1]]
    rule = OPERATORS[node.op].outputs_text.partition(":")[2].split()[0].rstrip(",")
    if rule == "dtype":
        return [inputs[0]] * count
    return [rule] * count


def tables() -> str:
    """The operator tables of docs/format.md."""
    parts = []
    for group, title in GROUPS.items():
        rows = [op.row() for op in OPERATORS.values() if op.group == group]
        parts.append("\n".join([f"### {title}", "", "| op | inputs -> output | attributes |", "|---|---|---|", *rows]))
    return "\n\n".join(parts) + "\n"


if __name__ == "__main__":
    print(tables(), end="")
