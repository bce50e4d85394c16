"""A stretch of a captured ONNX graph on torch tensors, differentiable: what reconstruction methods optimise through.

Only operators that lie between quantized layers are here; `unsupported` says which nodes of a stretch are not.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import onnx_ir as ir
import torch
from torch import Tensor
from torch.nn import functional as F

from netsuke.methods.quantize._graph import attribute, constant, integer, integers

Inputs = Sequence[Any]


def run(
    nodes: Sequence[ir.Node],
    values: dict[ir.Value, Tensor],
    weights: Mapping[ir.Node, Tensor] | None = None,
    after: Callable[[ir.Node, ir.Value, Tensor], Tensor] = lambda _node, _value, y: y,
) -> dict[ir.Value, Tensor]:
    """Evaluate the nodes; `values` holds the tensors read from outside and receives every output.

    weights  replaces the second input of these nodes
    after    may change an output before others read it (fake quantization)
    """
    for node in nodes:
        inputs: list[Any] = [_operand(v, values) for v in node.inputs]
        if weights is not None and node in weights:
            inputs[1] = weights[node]
        made = RULES[node.op_type](node, inputs)
        for value, y in zip(node.outputs, made if isinstance(made, (list, tuple)) else [made], strict=False):
            values[value] = after(node, value, y)
    return values


def unsupported(nodes: Sequence[ir.Node]) -> list[str]:
    """Operators of these nodes that have no rule here."""
    return sorted({n.op_type for n in nodes if n.domain not in ("", "ai.onnx") or n.op_type not in RULES or _odd(n)})


def _odd(node: ir.Node) -> bool:
    """Pools that round up or are dilated."""
    pool = node.op_type in ("AveragePool", "MaxPool")
    return pool and (integer(node, "ceil_mode", 0) != 0 or set(integers(node, "dilations", [1])) != {1})


def _operand(value: ir.Value | None, values: Mapping[ir.Value, Tensor]) -> Any:
    if value is None:
        return None
    if value in values:
        return values[value]
    array = constant(value)
    if array is None:
        raise KeyError(f"{value.name} is computed outside the stretch")
    return torch.from_numpy(np.array(array))  # a copy: constants may be read-only


def _pairs(node: ir.Node, x: Tensor, kernel: Sequence[int], value: float = 0.0) -> Tensor:
    """The input padded as the node's pads or auto_pad say."""
    spatial = len(kernel)
    pads = integers(node, "pads", [0] * (2 * spatial))
    mode = str(attribute(node, "auto_pad", "NOTSET"))
    if mode in ("SAME_UPPER", "SAME_LOWER"):
        strides, dilations = integers(node, "strides", [1] * spatial), integers(node, "dilations", [1] * spatial)
        for i in range(spatial):
            size = x.shape[2 + i]
            need = max(0, (-(-size // strides[i]) - 1) * strides[i] + dilations[i] * (kernel[i] - 1) + 1 - size)
            small, large = need // 2, need - need // 2
            pads[i], pads[spatial + i] = (small, large) if mode == "SAME_UPPER" else (large, small)
    if not any(pads):
        return x
    flat = [p for i in reversed(range(spatial)) for p in (pads[i], pads[spatial + i])]
    return F.pad(x, flat, value=value)


def _conv(node: ir.Node, inputs: Inputs) -> Tensor:
    x, weight, bias = inputs[0], inputs[1], inputs[2] if len(inputs) > 2 else None
    spatial = weight.ndim - 2
    function = {1: F.conv1d, 2: F.conv2d, 3: F.conv3d}[spatial]
    strides, dilations = integers(node, "strides", [1] * spatial), integers(node, "dilations", [1] * spatial)
    padded = _pairs(node, x, weight.shape[2:])
    return function(padded, weight, bias, strides, 0, dilations, integer(node, "group", 1))


def unfolded(node: ir.Node, x: Tensor, kernel: Sequence[int]) -> Tensor:
    """The columns a two-dimensional convolution multiplies: [groups, channels of a group * taps, positions]."""
    image = _pairs(node, x if x.ndim == 4 else x.unsqueeze(2), kernel)
    strides, dilations = integers(node, "strides", [1] * len(kernel)), integers(node, "dilations", [1] * len(kernel))
    columns = F.unfold(image, tuple(kernel), tuple(dilations), 0, tuple(strides))
    groups = integer(node, "group", 1)
    split = columns.reshape(len(columns), groups, -1, columns.shape[-1])
    return split.permute(1, 2, 0, 3).reshape(groups, split.shape[2], -1)


def _gemm(node: ir.Node, inputs: Inputs) -> Tensor:
    a = inputs[0].T if integer(node, "transA", 0) else inputs[0]
    b = inputs[1].T if integer(node, "transB", 0) else inputs[1]
    alpha, beta = attribute(node, "alpha", 1.0), attribute(node, "beta", 1.0)
    out: Tensor = alpha * (a @ b) if alpha != 1.0 else a @ b
    return out + beta * inputs[2] if len(inputs) > 2 and inputs[2] is not None else out


def _clip(_node: ir.Node, inputs: Inputs) -> Tensor:
    low = inputs[1] if len(inputs) > 1 else None
    high = inputs[2] if len(inputs) > 2 else None
    out: Tensor = inputs[0]
    if low is not None:
        out = torch.maximum(out, low.to(out.dtype))
    return out if high is None else torch.minimum(out, high.to(out.dtype))


def _pool(node: ir.Node, inputs: Inputs) -> Tensor:
    kernel = integers(node, "kernel_shape", [])
    strides = integers(node, "strides", [1] * len(kernel))
    if node.op_type == "MaxPool":
        return F.max_pool2d(_pairs(node, inputs[0], kernel, -torch.inf), kernel, strides)
    x = _pairs(node, inputs[0], kernel)
    total = F.avg_pool2d(x, kernel, strides)
    if integer(node, "count_include_pad", 0) or x.shape == inputs[0].shape:
        return total
    inside = _pairs(node, torch.ones_like(inputs[0][:1, :1]), kernel)
    return total / F.avg_pool2d(inside, kernel, strides)


def _axes(node: ir.Node, inputs: Inputs) -> list[int] | None:
    if len(inputs) > 1 and inputs[1] is not None:
        return [int(a) for a in inputs[1].reshape(-1)]
    listed = attribute(node, "axes", None)
    return None if listed is None else [int(a) for a in listed]  # type: ignore[attr-defined]


def _mean(node: ir.Node, inputs: Inputs) -> Tensor:
    axes = _axes(node, inputs) or list(range(inputs[0].ndim))
    return torch.as_tensor(inputs[0].mean(dim=axes, keepdim=bool(integer(node, "keepdims", 1))))


def _layernorm(node: ir.Node, inputs: Inputs) -> Tensor:
    axis, x = integer(node, "axis", -1) % inputs[0].ndim, inputs[0]
    bias = inputs[2] if len(inputs) > 2 else None
    epsilon = float(attribute(node, "epsilon", 1e-5))  # type: ignore[arg-type]
    return F.layer_norm(x, x.shape[axis:], inputs[1], bias, epsilon)


def _reshape(_node: ir.Node, inputs: Inputs) -> Tensor:
    sizes = [int(s) for s in inputs[1]]
    return torch.reshape(inputs[0], [inputs[0].shape[i] if s == 0 else s for i, s in enumerate(sizes)])


def _flatten(node: ir.Node, inputs: Inputs) -> Tensor:
    axis = integer(node, "axis", 1)
    return torch.reshape(inputs[0], (int(np.prod(inputs[0].shape[:axis])), -1))


def _transpose(node: ir.Node, inputs: Inputs) -> Tensor:
    return torch.permute(inputs[0], integers(node, "perm", list(reversed(range(inputs[0].ndim)))))


def _slice(_node: ir.Node, inputs: Inputs) -> Tensor:
    x = inputs[0]
    starts, ends = ([int(v) for v in t] for t in inputs[1:3])
    axes = [int(v) for v in inputs[3]] if len(inputs) > 3 and inputs[3] is not None else list(range(len(starts)))
    steps = [int(v) for v in inputs[4]] if len(inputs) > 4 and inputs[4] is not None else [1] * len(starts)
    for start, end, axis, step in zip(starts, ends, axes, steps, strict=True):
        x = torch.index_select(x, axis, torch.from_numpy(np.arange(x.shape[axis])[start:end:step].copy()))
    return torch.as_tensor(x)


def _pad(node: ir.Node, inputs: Inputs) -> Tensor:
    x, pads = inputs[0], [int(p) for p in inputs[1]]
    axes = [int(a) % x.ndim for a in inputs[3]] if len(inputs) > 3 and inputs[3] is not None else list(range(x.ndim))
    pairs = dict(zip(axes, zip(pads[: len(axes)], pads[len(axes) :], strict=True), strict=True))
    flat = [p for axis in reversed(range(x.ndim)) for p in pairs.get(axis, (0, 0))]
    fill = float(inputs[2]) if len(inputs) > 2 and inputs[2] is not None else 0.0
    mode = {"constant": "constant", "reflect": "reflect", "edge": "replicate"}[str(attribute(node, "mode", "constant"))]
    return F.pad(x, flat, mode, fill) if mode == "constant" else F.pad(x, flat, mode)


def _split(node: ir.Node, inputs: Inputs) -> list[Tensor]:
    axis = integer(node, "axis", 0)
    sizes = [int(s) for s in inputs[1]] if len(inputs) > 1 and inputs[1] is not None else None
    return list(torch.split(inputs[0], sizes or -(-inputs[0].shape[axis] // len(node.outputs)), axis))


def _gather(node: ir.Node, inputs: Inputs) -> Tensor:
    axis, index = integer(node, "axis", 0) % inputs[0].ndim, inputs[1].long()
    picked = torch.index_select(inputs[0], axis, index.reshape(-1) % inputs[0].shape[axis])
    return picked.reshape(*inputs[0].shape[:axis], *index.shape, *inputs[0].shape[axis + 1 :])


def _unsqueeze(node: ir.Node, inputs: Inputs) -> Tensor:
    axes = _axes(node, inputs) or []
    rank = inputs[0].ndim + len(axes)
    x = inputs[0]
    for axis in sorted(a % rank for a in axes):
        x = x.unsqueeze(axis)
    return torch.as_tensor(x)


def _squeeze(node: ir.Node, inputs: Inputs) -> Tensor:
    axes = _axes(node, inputs)
    return torch.squeeze(inputs[0]) if axes is None else torch.squeeze(inputs[0], tuple(axes))


def _gelu(node: ir.Node, inputs: Inputs) -> Tensor:
    return F.gelu(inputs[0], approximate=str(attribute(node, "approximate", "none")))


def _hard_sigmoid(node: ir.Node, inputs: Inputs) -> Tensor:
    alpha, beta = float(attribute(node, "alpha", 0.2)), float(attribute(node, "beta", 0.5))  # type: ignore[arg-type]
    return torch.clamp(alpha * inputs[0] + beta, 0, 1)


RULES: dict[str, Callable[[ir.Node, Inputs], Any]] = {
    "Add": lambda _, v: v[0] + v[1],
    "AveragePool": _pool,
    "Clip": _clip,
    "Concat": lambda n, v: torch.cat(list(v), integer(n, "axis", 0)),
    "Conv": _conv,
    "Div": lambda _, v: v[0] / v[1],
    "Erf": lambda _, v: torch.erf(v[0]),
    "Exp": lambda _, v: torch.exp(v[0]),
    "Flatten": _flatten,
    "Gather": _gather,
    "Gelu": _gelu,
    "Gemm": _gemm,
    "GlobalAveragePool": lambda _, v: v[0].mean(dim=tuple(range(2, v[0].ndim)), keepdim=True),
    "HardSigmoid": _hard_sigmoid,
    "HardSwish": lambda _, v: F.hardswish(v[0]),
    "Identity": lambda _, v: v[0],
    "LayerNormalization": _layernorm,
    "LeakyRelu": lambda n, v: F.leaky_relu(v[0], float(attribute(n, "alpha", 0.01))),  # type: ignore[arg-type]
    "MatMul": lambda _, v: v[0] @ v[1],
    "MaxPool": _pool,
    "Mul": lambda _, v: v[0] * v[1],
    "Neg": lambda _, v: -v[0],
    "Pad": _pad,
    "Pow": lambda _, v: v[0] ** v[1],
    "Reciprocal": lambda _, v: 1 / v[0],
    "ReduceMean": _mean,
    "Relu": lambda _, v: F.relu(v[0]),
    "Reshape": _reshape,
    "Sigmoid": lambda _, v: torch.sigmoid(v[0]),
    "Slice": _slice,
    "Softmax": lambda n, v: torch.softmax(v[0], integer(n, "axis", -1)),
    "Split": _split,
    "Sqrt": lambda _, v: torch.sqrt(v[0]),
    "Squeeze": _squeeze,
    "Sub": lambda _, v: v[0] - v[1],
    "Tanh": lambda _, v: torch.tanh(v[0]),
    "Transpose": _transpose,
    "Unsqueeze": _unsqueeze,
    "Where": lambda _, v: torch.where(v[0], v[1], v[2]),
}
