"""MatMul of signs (or of 0 and 1) with signs or numbers, both computed at run time, becomes bmatmul.

Signs along the summed axis are packed: those of a lie on its last axis already, those of b go there by a transpose in
front of the sign. The number of terms must be known; where it is not, the product stays a float one, which adds the
same numbers.
"""

from __future__ import annotations

import dataclasses

import numpy as np
import onnx_ir as ir

from netsuke.capture.binary_forms import Signs, signs_of, zero_one_of
from netsuke.capture.graph import attr, constant, dims_of, is_constant, is_op, made_by, replace, source_of
from netsuke.formats import word_count
from netsuke.passes.nodes import F32, I64, ns, transposed

_MOST = 2**24  # terms of one sum (format.md)


def lower_bmatmul(graph: ir.Graph) -> int:
    """Rewrite in place; returns how many products became bmatmul."""
    return sum(_lower(node) for node in list(graph) if is_op(node, "MatMul"))


def _plain_signs(value: ir.Value | None) -> Signs | None:
    """Signs that are two-valued everywhere, ONNX Sign's 0 at 0 and pads excluded."""
    found = signs_of(value)
    return found if found is not None and not found.ties and not found.pads else None


def _columns(node: ir.Node, b: ir.Value, swap: list[int]) -> Signs | None:
    """The signs of b with the summed axis last: from before the transpose that brought them here, or transposed."""
    mover = made_by(b, "Transpose")
    if mover is not None and attr(mover, "perm") == swap:
        return _plain_signs(mover.inputs[0])
    found = _plain_signs(b)
    return None if found is None else dataclasses.replace(found, x=transposed(node, found.x, swap))


def _lower(node: ir.Node) -> bool:
    a, b = node.inputs[0], node.inputs[1]
    if a is None or b is None or is_constant(a) or is_constant(b) or b.dtype != F32:
        return False
    left, right = dims_of(a), dims_of(b)
    if left is None or right is None or len(left) != len(right) or len(left) < 2 or left[:-2] != right[:-2]:
        return False
    terms = left[-1]
    if not isinstance(terms, int) or not 1 <= terms <= _MOST or right[-2] != terms:
        return False
    first, levels = _plain_signs(a), "sign"
    x, threshold, gain = (None, 0.0, 1.0) if first is None else (first.x, first.threshold, first.scale)
    if x is None:
        bits = zero_one_of(a)
        if bits is None:
            return False
        x, threshold = bits
        levels = "bool"
    second = _columns(node, b, [*range(len(right) - 2), len(right) - 1, len(right) - 2])
    other = b
    if second is not None:
        other, gain = _packed(node, second.x, second.threshold), float(np.float32(gain) * np.float32(second.scale))
    attrs = {"channels": terms, "levels": levels, "mult": gain}
    out, inputs = node.outputs[0], [_packed(node, x, threshold), other]
    source = source_of(out)
    y = ns(node, "bmatmul", inputs, attrs, dtype=F32, dims=dims_of(out), name=node.name or "", source=source)
    replace(node.outputs[0], y)
    y.meta["source"] = source
    assert node.graph is not None
    node.graph.remove(node, safe=True)
    return True


def _packed(node: ir.Node, x: ir.Value, threshold: float) -> ir.Value:
    """sign_pack of x along its last axis."""
    dims = list(dims_of(x) or [])
    channels = int(dims[-1])
    assert node.graph is not None
    limits = constant(node.graph, np.full(channels, threshold, np.float32), f"{node.name}.threshold")
    return ns(node, "sign_pack", [x, limits], dtype=I64, dims=[*dims[:-1], word_count(channels)])
