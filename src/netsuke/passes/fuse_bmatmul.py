"""The threshold on scores goes into the product of signs that makes them, bits in, bits out; so does a factor.

    sign_pack(bmatmul)                    score >= c
    sign_pack(bmatmul - its row maximum)  score >= maximum + c, which softmax(score) >= exp(c) maximum(softmax) says too

Scores are whole numbers times mult, so the threshold on the number is found exactly, by bisection with the step
evaluated in f32 as written.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx_ir as ir

from netsuke.capture.graph import Array, array_of, attr, dims_of, only_user, operand, scalar_of, source_of, sweep
from netsuke.capture.graph import replace as replace_value
from netsuke.formats import word_count
from netsuke.passes.fuse_binary import smallest
from netsuke.passes.nodes import F32, I64, from_ns, is_ns, ns, same_dims


def fuse_bmatmul(graph: ir.Graph) -> int:
    """Rewrite in place; returns how many thresholds went into a product."""
    count = sum(_fuse(node) for node in list(graph) if is_ns(node, "sign_pack"))
    count += sum(_scale(node) for node in list(graph) if is_ns(node, "bmatmul"))
    sweep(graph)
    return count


def _fuse(pack: ir.Node) -> bool:
    limit = array_of(pack.inputs[1])
    if limit is None or limit.dtype != np.float32 or operand(pack, 2) is not None or (limit != limit[0]).any():
        return False
    product, relative = from_ns(pack.inputs[0], "bmatmul"), False
    if product is None:
        product, relative = _below_maximum(pack), True
    columns = (dims_of(product.outputs[0]) or [None])[-1] if product is not None else None
    if product is None or attr(product, "out", "f32") != "f32" or not isinstance(columns, int):
        return False
    if product.inputs[1] is None or product.inputs[1].dtype != I64:
        return False
    if not relative and only_user(product.outputs[0]) is not pack:
        return False
    threshold = _threshold(product, limit, relative=relative)
    if threshold is None:
        return False
    kept = {key: attr(product, key) for key in ("channels", "levels")}
    attrs: dict[str, Any] = {**kept, "out": "bits", "columns": columns, "threshold": threshold}
    attrs["relative"] = int(relative)
    out, source = pack.outputs[0], source_of(product.outputs[0])
    dims = [*(dims_of(product.outputs[0]) or [])[:-1], word_count(columns)]
    y = ns(pack, "bmatmul", product.inputs, attrs, dtype=I64, dims=dims, name=f"{product.name}.kept", source=source)
    replace_value(out, y)
    assert pack.graph is not None
    pack.graph.remove(pack, safe=True)
    return True


def _scale(product: ir.Node) -> bool:
    """A factor behind whole sums is their mult: f32(acc) * 1 * c and f32(acc) * c are the same."""
    y = product.outputs[0]
    user = only_user(y) if attr(product, "out", "f32") == "f32" and attr(product, "mult", 1.0) == 1.0 else None
    if user is None or not is_ns(user, "binary") or attr(user, "fn") != "mul" or "quant_scale" in user.attributes:
        return False
    factor = scalar_of(user.inputs[1] if user.inputs[0] is y else user.inputs[0])
    if factor is None or not np.isfinite(factor) or not same_dims(y, user.outputs[0]):
        return False
    given = {**{key: attr(product, key) for key in product.attributes}, "mult": factor}
    out, dims = user.outputs[0], dims_of(y)
    source = source_of(out)
    made = ns(user, "bmatmul", product.inputs, given, dtype=F32, dims=dims, name=product.name or "", source=source)
    replace_value(out, made)
    assert user.graph is not None
    user.graph.remove(user, safe=True)
    assert product.graph is not None
    product.graph.remove(product, safe=True)
    return True


def _below_maximum(pack: ir.Node) -> ir.Node | None:
    """The bmatmul y of y - max(y) over the last axis, when nothing else reads y."""
    difference = from_ns(pack.inputs[0], "binary")
    if difference is None or attr(difference, "fn") != "sub" or "quant_scale" in difference.attributes:
        return None
    product, most = from_ns(difference.inputs[0], "bmatmul"), from_ns(difference.inputs[1], "reduce")
    if product is None or most is None or attr(most, "fn") != "max" or most.inputs[0] is not product.outputs[0]:
        return None
    rank, axes = len(dims_of(product.outputs[0]) or ()), [int(a) for a in attr(most, "axes")]
    users = {id(node) for node, _ in product.outputs[0].uses()}
    if axes not in ([-1], [rank - 1]) or not int(attr(most, "keepdims", 1)) or users != {id(difference), id(most)}:
        return None
    return product


def _threshold(product: ir.Node, limit: Array, *, relative: bool) -> int | None:
    """The smallest whole score (or difference of two) that reaches the limit; None where f32 steps are not monotone."""
    mult, terms = np.float32(attr(product, "mult", 1.0)), int(attr(product, "channels"))
    if not mult > 0 or (relative and mult != 1) or not np.isfinite(limit[0]):
        return None
    edge = np.asarray([2 * terms if relative else terms], np.int64)
    return int(smallest(lambda i: i.astype(np.float32) * mult >= limit[0], -edge, edge)[0])
