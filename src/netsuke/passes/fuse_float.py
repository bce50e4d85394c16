"""Residual adds, activations and biases taken into the float layer in front of them, quantize into its producer."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx_ir as ir

from netsuke.capture.graph import (
    array_of,
    attr,
    constant,
    dims_of,
    is_constant,
    only_user,
    operand,
    replace,
    source_of,
    sweep,
)
from netsuke.passes.nodes import F32, U8, bounds_of, is_ns, ns, same_dims

# Position of the residual among the inputs.
_RESIDUAL = {"conv": 3, "linear": 3, "qconv": 5, "qlinear": 5}
_QUANTIZING = ("unary", "layernorm", "softmax", "binary")
_NOT_FUSED = frozenset(("not", "isnan", "identity"))


def fuse_float(graph: ir.Graph) -> int:
    """Rewrite in place; returns how many nodes went into another."""
    count = 0
    for rule in (_bias, _scale_alpha, _residual, _activation, _quantize):
        order = {id(node): i for i, node in enumerate(graph)}
        for node in list(graph):
            while node.graph is not None and (fused := rule(node, order)) is not None:
                order[id(fused)] = order.get(id(node), 0)
                node = fused
                count += 1
    sweep(graph)
    return count


def _again(
    old: ir.Node, at: ir.Node, inputs: list[ir.Value | None], attrs: dict[str, Any], dtype: ir.DataType = F32
) -> ir.Node:
    """`old` again in the place of `at`, whose output it takes over."""
    given = {name: a.value for name, a in old.attributes.items()}
    given = {k: list(v) if isinstance(v, tuple) else v for k, v in given.items()} | attrs
    out = at.outputs[0]
    y = ns(
        at,
        old.op_type,
        inputs,
        given,
        dtype=dtype,
        dims=dims_of(out) or dims_of(old.outputs[0]),
        name=old.name or "",
        source=source_of(out),
    )
    source = source_of(out)
    replace(out, y)
    y.meta["source"] = source
    assert at.graph is not None
    at.graph.remove(at, safe=True)
    assert old.graph is not None
    old.graph.remove(old, safe=True)
    made = y.producer()
    assert made is not None
    return made


def _bias(node: ir.Node, _: dict[int, int]) -> ir.Node | None:
    """linear or conv without a bias, then + a constant vector on the last axis."""
    user = only_user(node.outputs[0]) if is_ns(node, "linear", "conv") else None
    if user is None or not _is_binary(user, "add") or operand(node, 2) is not None or not _bare(node):
        return None
    other = _other(user, node.outputs[0])
    array = array_of(other) if is_constant(other) else None
    weight = array_of(node.inputs[1])
    if array is None or weight is None or node.graph is None:
        return None
    outs = weight.shape[0]
    rank = len(dims_of(node.outputs[0]) or ())
    if array.ndim > rank or array.size not in (1, outs) or (array.size > 1 and array.shape[-1] != outs):
        return None
    vector = np.broadcast_to(array.reshape(-1), (outs,)).astype(np.float32)
    bias = constant(node.graph, vector.copy(), f"{node.name}.bias")
    return _again(node, user, [node.inputs[0], node.inputs[1], bias], {})


def _scale_alpha(node: ir.Node, _: dict[int, int]) -> ir.Node | None:
    """A product of two activations times a positive or negative constant scalar."""
    user = only_user(node.outputs[0]) if is_ns(node, "matmul") else None
    if user is None or not _is_binary(user, "mul", "div"):
        return None
    other = _other(user, node.outputs[0])
    array = array_of(other) if is_constant(other) else None
    if array is None or array.size != 1 or (attr(user, "fn") == "div" and user.inputs[0] is not node.outputs[0]):
        return None
    factor = np.float64(array.reshape(-1)[0])
    factor = 1.0 / factor if attr(user, "fn") == "div" else factor
    alpha = float(np.float32(float(attr(node, "alpha", 1.0)) * factor))
    return _again(node, user, list(node.inputs), {"alpha": alpha}) if np.isfinite(alpha) else None


def _residual(node: ir.Node, order: dict[int, int]) -> ir.Node | None:
    """layer + float value of the same shape. Of two layers the later one takes the sum."""
    index = _RESIDUAL.get(node.op_type) if node.domain == "netsuke" else None
    user = only_user(node.outputs[0]) if index is not None else None
    if (
        index is None
        or user is None
        or not _is_binary(user, "add")
        or operand(node, index) is not None
        or not _bare(node)
    ):
        return None
    other = _other(user, node.outputs[0])
    if other is None or other is node.outputs[0] or is_constant(other) or other.dtype != F32:
        return None
    if not same_dims(node.outputs[0], other):
        return None
    producer = other.producer()
    if (
        producer is not None
        and _takes_residual(producer)
        and only_user(other) is user
        and _later(producer, node, order)
    ):
        return None
    inputs = [*node.inputs, *[None] * (index - len(node.inputs))]
    return _again(node, user, [*inputs[:index], other], {})


def _takes_residual(node: ir.Node) -> bool:
    index = _RESIDUAL.get(node.op_type) if node.domain == "netsuke" else None
    return index is not None and operand(node, index) is None and _bare(node)


def _later(a: ir.Node, b: ir.Node, order: dict[int, int]) -> bool:
    return order.get(id(a), -1) > order.get(id(b), -1)


def _activation(node: ir.Node, _: dict[int, int]) -> ir.Node | None:
    if not is_ns(node, "conv", "linear", "conv_transpose", "qconv", "qlinear") or not _bare(node):
        return None
    user = only_user(node.outputs[0])
    if user is None or not is_ns(user, "unary") or "quant_scale" in user.attributes:
        return None
    if is_ns(node, "qconv", "qlinear"):
        bounds = bounds_of(user)
        if bounds is None:
            return None
        limits = {key: v for key, v in (("flo", bounds[0]), ("fhi", bounds[1])) if np.isfinite(v)}
        return _again(node, user, list(node.inputs), limits)
    fn = attr(user, "fn")
    if fn in _NOT_FUSED:
        return None
    extra = {key: attr(user, key) for key in ("alpha", "beta") if key in user.attributes}
    return _again(node, user, list(node.inputs), {"act": fn, **extra})


def _quantize(node: ir.Node, _: dict[int, int]) -> ir.Node | None:
    """unary, layernorm, softmax or binary whose only reader is a quantize over the full code range."""
    if not is_ns(node, *_QUANTIZING) or node.outputs[0].dtype != F32 or "quant_scale" in node.attributes:
        return None
    user = only_user(node.outputs[0])
    if (
        user is None
        or not is_ns(user, "quantize")
        or (int(attr(user, "lo", 0)), int(attr(user, "hi", 255))) != (0, 255)
    ):
        return None
    extra = {"quant_scale": float(attr(user, "scale")), "quant_zero": int(attr(user, "zero"))}
    return _again(node, user, list(node.inputs), extra, dtype=U8)


def _bare(node: ir.Node) -> bool:
    """True for a float result nothing has been applied to yet."""
    if node.outputs[0].dtype != F32 or attr(node, "act", "none") != "none":
        return False
    return "flo" not in node.attributes and "fhi" not in node.attributes


def _is_binary(node: ir.Node, *fns: str) -> bool:
    return is_ns(node, "binary") and attr(node, "fn") in fns and "quant_scale" not in node.attributes


def _other(user: ir.Node, value: ir.Value) -> ir.Value | None:
    return user.inputs[1] if user.inputs[0] is value else user.inputs[0]
