"""Cross-layer equalization: even out the ranges of the channels between two layers.

Paper: Nagel et al., "Data-Free Quantization Through Weight Equalization and Bias Correction", 2019 (arXiv
1906.04721), section 4.1.
Idea: for f(s x) = s f(x) with s > 0 (ReLU, leaky ReLU, identity), channel i between two layers can be scaled by
c_i in the first and by 1 / c_i in the second without changing the function.
Equations: r1_i = max|W1 row i|, r2_i = max|W2 column i|; c_i = sqrt(r1_i r2_i) / r1_i; W1 row i and b1_i times
c_i, W2 column i over c_i; both ranges become sqrt(r1_i r2_i). All pairs are swept until no factor is further than
1e-3 from 1, at most 20 times. Then, where batch-norm statistics are known (scaled by c too), the optional bias
absorption (section 4.1.3): a_i = max(0, beta_i - 3 gamma_i), b1 -= a, b2 += W2 a.
Differences: ranges are max|.|, as weights are symmetric here; channels with a zero range on either side keep c =
1. ReLU6 is left alone (replacing it by ReLU changes the function). Bias absorption is off by default.
Cost: none at run time. Limits: only where one layer alone feeds one other; a residual add breaks the pair.
"""

from __future__ import annotations

import json
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import onnx_ir as ir

from netsuke.capture.batchnorm import BN_MEAN, BN_STD
from netsuke.core.method import Method, register
from netsuke.methods.quantize._context import Context
from netsuke.methods.quantize._graph import (
    along,
    attribute,
    bn_statistics,
    channel_axis,
    constant,
    integer,
    integers,
    only_use,
    replace_parameters,
)

Vector = npt.NDArray[np.float64]
SCALABLE = ("Relu", "LeakyRelu")
SWEEPS = 20
TOLERANCE = 1e-3


@dataclass(frozen=True)
class Equalization:
    """absorb  also absorb high biases into the next layer (needs batch-norm statistics)."""

    absorb: bool = False


def apply(context: Context, config: Equalization) -> None:
    """Equalize all pairs of the context's model."""
    found = pairs(context.model.graph)
    for _ in range(SWEEPS):
        settled = [equalize(context.model.graph, *pair) for pair in found]
        if all(settled):
            break
    absorbed = sum(absorb(context.model.graph, *pair) for pair in found) if config.absorb else 0
    context.plan.note(
        f"{len(found)} pairs of layers equalized" + (f", {absorbed} biases absorbed" if config.absorb else "")
    )


def pairs(graph: ir.Graph) -> list[tuple[ir.Node, ir.Node]]:
    """(first, second) convolutions or linear layers where the second alone reads the first, over scalable
    activations only."""
    found = []
    for first in graph:
        if first.op_type not in ("Conv", "Gemm") or not _editable(first):
            continue
        follower = only_use(first.outputs[0])
        while follower is not None and follower.op_type in SCALABLE:
            follower = only_use(follower.outputs[0])
        same_kind = follower is not None and follower.op_type == first.op_type
        if follower is not None and same_kind and _editable(follower):
            found.append((first, follower))
    return found


def _editable(node: ir.Node) -> bool:
    weight, bias = constant(node.inputs[1]), node.inputs[2] if len(node.inputs) > 2 else None
    own = weight is not None and len(list(node.inputs[1].uses())) == 1  # type: ignore[union-attr]
    plain = node.op_type == "Conv" or (attribute(node, "alpha", 1.0) == 1.0 and attribute(node, "beta", 1.0) == 1.0)
    return own and plain and not attribute(node, "transA", 0) and (bias is None or constant(bias) is not None)


def equalize(graph: ir.Graph, first: ir.Node, second: ir.Node) -> bool:
    """Scale one pair; True when all factors were within the tolerance of 1 (nothing left to do)."""
    r1, r2 = row_ranges(first), column_ranges(second)
    usable = (r1 > 0) & (r2 > 0)
    factor = np.where(usable, np.sqrt(np.where(usable, r2, 1.0) / np.where(usable, r1, 1.0)), 1.0)
    if np.abs(factor - 1).max(initial=0.0) <= TOLERANCE:
        return True
    weight, bias = _parameters(first)
    axis = channel_axis(first)
    assert axis is not None
    replace_parameters(graph, first, weight * along(factor, axis, weight.ndim), None if bias is None else bias * factor)
    scale_columns(graph, second, 1 / factor)
    statistics = bn_statistics(first)
    if statistics is not None:
        first.metadata_props[BN_MEAN] = json.dumps((statistics[0] * factor).tolist())
        first.metadata_props[BN_STD] = json.dumps((statistics[1] * factor).tolist())
    return False


def _parameters(node: ir.Node) -> tuple[npt.NDArray[np.floating], Vector | None]:
    weight = constant(node.inputs[1])
    bias = constant(node.inputs[2]) if len(node.inputs) > 2 else None
    assert weight is not None
    return weight.astype(np.float64), None if bias is None else bias.astype(np.float64).reshape(-1)


def row_ranges(node: ir.Node) -> Vector:
    """max|W| per output channel."""
    weight, axis = _parameters(node)[0], channel_axis(node)
    assert axis is not None
    return np.asarray(np.abs(np.moveaxis(weight, axis, 0)).reshape(weight.shape[axis], -1).max(axis=1))


def by_input(node: ir.Node) -> npt.NDArray[np.floating]:
    """The weight as [input channels, everything else]; grouped convolutions list the channels group by group."""
    weight = _parameters(node)[0]
    if node.op_type != "Conv":
        return weight.T if attribute(node, "transB", 0) else weight
    groups = integer(node, "group", 1)
    split = weight.reshape(groups, weight.shape[0] // groups, weight.shape[1], -1)
    return np.asarray(split.transpose(0, 2, 1, 3).reshape(groups * weight.shape[1], -1))


def column_ranges(node: ir.Node) -> Vector:
    """max|W| per input channel."""
    return np.asarray(np.abs(by_input(node)).max(axis=1))


def scale_columns(graph: ir.Graph, node: ir.Node, factor: Vector) -> None:
    """Multiply the weights that read input channel i by factor[i]."""
    weight = _parameters(node)[0]
    if node.op_type != "Conv":
        shaped = factor[None] if attribute(node, "transB", 0) else factor[:, None]
        replace_parameters(graph, node, weight * shaped, None)
        return
    groups = integer(node, "group", 1)
    shaped = np.repeat(factor.reshape(groups, -1), weight.shape[0] // groups, axis=0)
    replace_parameters(graph, node, weight * shaped.reshape(*weight.shape[:2], *[1] * (weight.ndim - 2)), None)


def absorb(graph: ir.Graph, first: ir.Node, second: ir.Node) -> bool:
    """Move the part of the first layer's bias that its ReLU passes almost always into the second layer's bias."""
    statistics, behind = bn_statistics(first), only_use(first.outputs[0])
    padded = any(integers(second, "pads", [0])) or attribute(second, "auto_pad", "NOTSET") not in ("NOTSET", "VALID")
    if statistics is None or behind is None or behind.op_type != "Relu" or padded:
        return False  # with padding the constant would be missing at the borders
    high = np.maximum(0.0, statistics[0] - 3 * statistics[1])
    if not high.any():
        return False
    weight, bias = _parameters(first)
    replace_parameters(graph, first, weight, (0.0 if bias is None else bias) - high)
    first.metadata_props[BN_MEAN] = json.dumps((statistics[0] - high).tolist())
    later, old = _parameters(second)
    columns = by_input(second)
    if second.op_type == "Conv":
        groups = integer(second, "group", 1)
        sums = columns.reshape(groups, -1, later.shape[0] // groups, int(np.prod(later.shape[2:]))).sum(axis=3)
        gained = np.einsum("gio,gi->go", sums, high.reshape(groups, -1)).reshape(-1)
    else:
        gained = high @ columns
    replace_parameters(graph, second, later, gained + (0.0 if old is None else old))
    return True


METHOD = register(
    Method(
        name="quantize/equalization",
        purpose="even out channel ranges between consecutive layers without changing the function",
        paper="quant-whitepaper",
        config=Equalization,
        apply=apply,
        touches=("weights", "activations"),
        exports=("qconv", "qlinear"),
        cost="seconds, no data",
        tags=("graph",),
    )
)
