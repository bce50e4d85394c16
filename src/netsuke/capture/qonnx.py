"""Quant and BipolarQuant of QONNX files (Brevitas, FINN), written in the canonical form that the passes lower.

    Quant(x, scale, zero, bits)   scale * (clamp(round(x / scale + zero), lo, hi) - zero); lo, hi of bits and signed
    BipolarQuant(x, scale)        scale where x >= 0, else -scale

Constants become int8 codes behind DequantizeLinear whatever their bits (the compiler stores as few bits as hold them);
activations become Clip (the range of b bits), QuantizeLinear, DequantizeLinear, or a comparison with 0. A constant
without such a form, of more than 8 bits say, becomes the float constant it stands for; an activation is refused by
name. QuantizeLinear rounds before it adds the zero point, so with an odd zero point a quotient exactly between two
codes takes the other neighbour.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import onnx_ir as ir

from netsuke.capture.graph import Array, array_of, attr, constant, dims_of, emit, is_constant, operand, replace
from netsuke.core.errors import Problem, UnsupportedError

DOMAINS = ("qonnx.custom_op.general", "onnx.brevitas", "finn.custom_op.general")
LIMIT_KEY = "netsuke.limit"  # marks a Clip as part of the quantizer behind it (netsuke.passes.qdq_normalize)
_F32 = ir.DataType.FLOAT


def qonnx_to_qdq(graph: ir.Graph) -> int:
    """Rewrite in place; returns how many nodes were replaced. UnsupportedError lists what has no form."""
    problems: list[Problem] = []
    count = 0
    for node in list(graph):
        if node.domain not in DOMAINS or node.op_type not in ("Quant", "IntQuant", "BipolarQuant"):
            continue
        problem = _problem(node)
        if problem is not None:
            problems.append(problem)
            continue
        new = _bipolar(node) if node.op_type == "BipolarQuant" else _quant(node)
        replace(node.outputs[0], new)
        graph.remove(node, safe=True)
        count += 1
    if problems:
        raise UnsupportedError(problems)
    return count


def _problem(node: ir.Node) -> Problem | None:
    """Why the node has no canonical form, or None."""
    where = f"{node.op_type} {node.name or ''}"
    parameters = [array_of(operand(node, i)) for i in range(1, 2 if node.op_type == "BipolarQuant" else 4)]
    if any(p is None for p in parameters):
        return Problem("the scale, zero point or width is computed at run time", where=where, hint="export static ones")
    scale = np.asarray(parameters[0])
    if not (np.isfinite(scale).all() and (scale > 0).all()):
        return Problem("scale is not a positive number", where=where, got=str(scale.reshape(-1)[:4].tolist()))
    if node.op_type == "BipolarQuant":
        return None
    mode = str(attr(node, "rounding_mode", "ROUND")).upper()
    if mode not in _ROUNDING:
        return Problem("unknown rounding_mode", where=where, got=mode, allowed=", ".join(_ROUNDING))
    bits = np.asarray(parameters[2])
    if bits.size != 1 or bits.reshape(-1)[0] < 1:
        return Problem("not one bit width", where=where, got=str(bits.tolist())[:80])
    return None if is_constant(node.inputs[0]) else _activation_problem(node, where, scale, mode)


def _activation_problem(node: ir.Node, where: str, scale: Array, mode: str) -> Problem | None:
    zero, bits = np.asarray(array_of(node.inputs[2])), int(np.ceil(np.asarray(array_of(node.inputs[3])).reshape(-1)[0]))
    if mode not in ("ROUND", "HALF_EVEN"):
        return Problem("rounding_mode of an activation", where=where, got=mode, allowed="ROUND (halves to even)")
    if bits > 8:
        return Problem("an activation of more than 8 bits", where=where, got=str(bits), allowed="1 to 8")
    if scale.size != 1 or zero.size != 1:
        return Problem("an activation needs one scale and one zero point", where=where, got=str(list(scale.shape)))
    low, high = _limits(node, bits)
    point = float(zero.reshape(-1)[0])
    type_low = -128 if int(attr(node, "signed", 1)) else 0
    if point != round(point) or not type_low <= point <= type_low + 255:
        return Problem("zero point outside of the codes", where=where, got=str(point), allowed=f"{low} to {high}")
    return None


_ROUNDING: dict[str, Callable[[Array], Array]] = {
    "ROUND": np.rint,
    "HALF_EVEN": np.rint,
    "CEIL": np.ceil,
    "FLOOR": np.floor,
    "UP": lambda v: np.sign(v) * np.ceil(np.abs(v)),
    "DOWN": np.trunc,
    "HALF_UP": lambda v: np.sign(v) * np.floor(np.abs(v) + 0.5),
    "HALF_DOWN": lambda v: np.sign(v) * np.ceil(np.abs(v) - 0.5),
}


def _limits(node: ir.Node, bits: int) -> tuple[int, int]:
    narrow = int(attr(node, "narrow", 0))
    if int(attr(node, "signed", 1)):
        return -(2 ** (bits - 1)) + narrow, 2 ** (bits - 1) - 1
    return 0, 2**bits - 1 - narrow


def _parameters(node: ir.Node) -> tuple[Array, Array, int]:
    scale, zero, bits = (np.asarray(array_of(node.inputs[i])) for i in (1, 2, 3))
    return scale.astype(np.float32), zero.astype(np.float32), int(np.ceil(bits.reshape(-1)[0]))


def _quant(node: ir.Node) -> ir.Value:
    scale, zero, bits = _parameters(node)
    low, high = _limits(node, bits)
    x, graph = node.inputs[0], node.graph
    assert x is not None
    assert graph is not None
    if is_constant(x):
        values = np.asarray(array_of(x), np.float32)
        mode = str(attr(node, "rounding_mode", "ROUND")).upper()
        steps = np.asarray(_ROUNDING[mode](np.clip(values / scale + zero, low, high)))
        return _constant(node, np.clip(steps, low, high) - zero, scale, bits <= 8)
    signed, point, step = bool(int(attr(node, "signed", 1))), float(zero.reshape(-1)[0]), float(scale.reshape(-1)[0])
    dims = dims_of(x)
    if (low, high) != ((-128, 127) if signed else (0, 255)):
        edges = [
            constant(graph, np.asarray(np.float32(edge - point) * np.float32(step), np.float32), f"{node.name}.limit")
            for edge in (low, high)
        ]
        x = emit(node, "Clip", [x, *edges], dtype=_F32, dims=dims)
        clip = x.producer()
        assert clip is not None
        clip.metadata_props[LIMIT_KEY] = f"{bits} bits"
    grid = [
        constant(graph, np.asarray(step, np.float32), f"{node.name}.scale"),
        constant(graph, np.asarray(point, np.int8 if signed else np.uint8), f"{node.name}.zero"),
    ]
    dtype = ir.DataType.INT8 if signed else ir.DataType.UINT8
    codes = emit(node, "QuantizeLinear", [x, *grid], dtype=dtype, dims=dims)
    return emit(node, "DequantizeLinear", [codes, *grid], dtype=_F32, dims=dims)


def _bipolar(node: ir.Node) -> ir.Value:
    x, graph = node.inputs[0], node.graph
    assert x is not None
    assert graph is not None
    scale = np.asarray(array_of(node.inputs[1]), np.float32)
    if is_constant(x):
        signs = np.where(np.asarray(array_of(x)) >= 0, 1.0, -1.0)
        return _constant(node, signs, scale, True)
    flat = scale.reshape(()) if scale.size == 1 else scale
    zero = constant(graph, np.asarray(0, np.float32), f"{node.name}.zero")
    above = emit(node, "GreaterOrEqual", [x, zero], dtype=ir.DataType.BOOL, dims=dims_of(x))
    pair = [constant(graph, np.asarray(v, np.float32), f"{node.name}.scale") for v in (flat, -flat)]
    return emit(node, "Where", [above, *pair], dtype=_F32, dims=dims_of(x))


def _constant(node: ir.Node, codes: Array, scale: Array, narrow: bool) -> ir.Value:
    """Codes (whole numbers, any float type) times scale: int8 behind DequantizeLinear, or the float constant."""
    assert node.graph is not None
    name = node.inputs[0].name if node.inputs[0] is not None else node.name
    axes = [i for i, d in enumerate(scale.shape) if d != 1]
    aligned = scale.ndim in (0, codes.ndim) or scale.size == 1
    if narrow and codes.ndim and len(axes) <= 1 and aligned and codes.min() >= -128 and codes.max() <= 127:
        many = scale.size > 1
        inputs = [
            constant(node.graph, codes.astype(np.int8), f"{name}.codes"),
            constant(node.graph, scale.reshape(-1) if many else scale.reshape(()), f"{name}.scale"),
        ]
        attrs = {"axis": axes[0]} if many else {}
        return emit(node, "DequantizeLinear", inputs, attrs, dtype=_F32, dims=[int(d) for d in codes.shape])
    return constant(node.graph, (codes.astype(np.float32) * scale).astype(np.float32), f"{name}.float")
