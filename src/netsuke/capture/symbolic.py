"""Names for free dimensions that ONNX shape inference leaves unknown: equal computations get equal names.

The height behind a stride-2 convolution of an image of height H becomes "(H-1)//2+1" wherever it appears, so the
passes can prove that both sides of a residual add have one shape.
"""

from __future__ import annotations

import math
import re
from typing import Any

import onnx_ir as ir

from netsuke.capture.graph import array_of, attr, dims_of, operand

_SAME = frozenset(
    [
        "Relu",
        "LeakyRelu",
        "PRelu",
        "Clip",
        "Sigmoid",
        "HardSigmoid",
        "HardSwish",
        "Swish",
        "Mish",
        "Gelu",
        "Tanh",
        "Elu",
        "Selu",
        "Softplus",
        "Softmax",
        "LogSoftmax",
        "Identity",
        "Dropout",
        "LayerNormalization",
        "BatchNormalization",
        "InstanceNormalization",
        "QuantizeLinear",
        "DequantizeLinear",
        "Cast",
        "Abs",
        "Neg",
        "Exp",
        "Log",
        "Sqrt",
        "Erf",
        "Floor",
        "Ceil",
        "Round",
        "Sign",
        "Sin",
        "Cos",
        "Reciprocal",
        "Not",
        "IsNaN",
        "GroupNormalization",
        "LpNormalization",
    ]
)
_BROADCAST = frozenset(
    [
        "Add",
        "Sub",
        "Mul",
        "Div",
        "Pow",
        "Min",
        "Max",
        "Mod",
        "Where",
        "And",
        "Or",
        "Xor",
        "Equal",
        "Less",
        "LessOrEqual",
        "Greater",
        "GreaterOrEqual",
    ]
)


def name_free_dims(graph: ir.Graph) -> int:
    """Fill unknown dimensions in place, in execution order; returns how many got a name or a size."""
    count = 0
    for value in graph.inputs:
        if value.shape is not None:
            value.shape = ir.Shape([None if _unknown(d) else d for d in dims_of(value) or []])
    for node in graph:
        for out in node.outputs:
            dims = dims_of(out)
            if dims is None or not any(_unknown(d) for d in dims):
                continue
            guess = _guess(node, len(dims))
            merged = [None if _unknown(d) else d for d in dims]
            if guess is not None:
                merged = [g if _unknown(d) else d for d, g in zip(dims, guess, strict=True)]
            count += sum(1 for d, m in zip(dims, merged, strict=True) if _unknown(d) and m is not None)
            out.shape = ir.Shape(merged)
    return count


def _unknown(dim: Any) -> bool:
    return dim is None or (isinstance(dim, str) and bool(re.fullmatch(r"unk__\d+", dim)))


def shape_entries(value: ir.Value | None, depth: int = 0) -> list[Any] | None:
    """The entries of an integer vector or scalar: int, str (a name as `name_free_dims` gives) or None (unknown).

    Follows the operators that exporters write shapes with; None when not even the length is known.
    """
    array = array_of(value)
    if array is not None:
        return [int(v) for v in array.reshape(-1)] if array.dtype.kind in "iu" else None
    node = value.producer() if value is not None else None
    if node is None or value is None or node.domain != "" or depth > 64:
        return _unknown_entries(value)
    if node.op_type == "Shape":
        dims = dims_of(node.inputs[0])
        return None if dims is None else dims[slice(int(attr(node, "start", 0)), attr(node, "end"))]
    if node.op_type in ("Squeeze", "Unsqueeze", "Cast", "Identity", "Reshape"):
        inner = shape_entries(node.inputs[0], depth + 1)
        return (
            inner if inner is not None and (node.op_type != "Reshape" or len(inner) == 1) else _unknown_entries(value)
        )
    if node.op_type == "Concat":
        parts = [shape_entries(v, depth + 1) for v in node.inputs]
        return None if any(p is None for p in parts) else [e for p in parts if p for e in p]
    if node.op_type in ("Gather", "Slice"):
        return _picked(node, depth)
    if node.op_type in ("Add", "Sub", "Mul", "Div"):
        return _arithmetic(node, depth) or _unknown_entries(value)
    return _unknown_entries(value)


def _unknown_entries(value: ir.Value | None) -> list[Any] | None:
    dims = dims_of(value)
    return [None] if dims is not None and (len(dims) == 0 or dims == [1]) else None


def _arithmetic(node: ir.Node, depth: int) -> list[Any] | None:
    """One-element sums, products and quotients of dimensions."""
    a, b = (shape_entries(v, depth + 1) for v in node.inputs[:2])
    if a is None or b is None or len(a) != 1 or len(b) != 1 or a[0] is None or b[0] is None:
        return None
    x, y = a[0], b[0]
    if node.op_type == "Add":
        return [_plus(x, y)] if isinstance(y, int) else [_plus(y, x)] if isinstance(x, int) else None
    if node.op_type == "Sub":
        return [_plus(x, -y)] if isinstance(y, int) else None
    if node.op_type == "Mul":
        return [_times(x, y)]
    return [_div(x, y)] if isinstance(y, int) and y > 0 else None


def _picked(node: ir.Node, depth: int) -> list[Any] | None:
    source = shape_entries(node.inputs[0], depth + 1)
    if source is None:
        return None
    if node.op_type == "Gather":
        index = array_of(node.inputs[1])
        if index is None or any(not -len(source) <= int(i) < len(source) for i in index.reshape(-1)):
            return None
        return [source[int(i)] for i in index.reshape(-1)]
    bounds = [array_of(operand(node, i)) for i in (1, 2)]
    step = array_of(operand(node, 4))
    if any(b is None or b.size != 1 for b in bounds) or (operand(node, 4) is not None and step is None):
        return None
    start, end = (int(b.reshape(-1)[0]) for b in bounds if b is not None)
    return source[start : end : int(step.reshape(-1)[0]) if step is not None else 1]


def _reshape(node: ir.Node, x: list[Any], rank: int) -> list[Any] | None:
    wanted = shape_entries(operand(node, 1))
    if wanted is None or len(wanted) != rank:
        return None
    copies = not int(attr(node, "allowzero", 0))
    dims = [(x[i] if copies and i < len(x) else 0) if e == 0 else e for i, e in enumerate(wanted)]
    if dims.count(-1) == 1 and None not in x and all(d is not None for d in dims):
        dims[dims.index(-1)] = _left_over(x, [d for d in dims if d != -1])
    return [None if d == -1 else d for d in dims]


def _left_over(before: list[Any], after: list[Any]) -> Any:
    """What -1 stands for: the factors of `before` that are not in `after`, when the rest cancels."""
    symbols = [d for d in before if not isinstance(d, int)]
    for dim in (d for d in after if not isinstance(d, int)):
        if dim not in symbols:
            return None
        symbols.remove(dim)
    numbers = [math.prod(d for d in dims if isinstance(d, int)) for dims in (before, after)]
    if numbers[1] == 0 or numbers[0] % numbers[1]:
        return None
    result: Any = numbers[0] // numbers[1]
    for symbol in symbols:
        result = _times(result, symbol)
    return result


def _guess(node: ir.Node, rank: int) -> list[Any] | None:
    x = dims_of(node.inputs[0]) if node.inputs else None
    if node.op_type == "Reshape" and x is not None:
        return _reshape(node, x, rank)
    if node.op_type in ("Expand", "ConstantOfShape"):
        wanted = shape_entries(operand(node, 1 if node.op_type == "Expand" else 0))
        return wanted if wanted is not None and len(wanted) == rank and 1 not in wanted and -1 not in wanted else None
    if node.op_type in _SAME:
        return x if x is not None and len(x) == rank else None
    if node.op_type in _BROADCAST:
        return _broadcast([dims_of(v) for v in node.inputs if v is not None], rank)
    if x is None:
        return None
    if node.op_type in ("Conv", "MaxPool", "AveragePool", "ConvTranspose") and len(x) == rank:
        return _window(node, x)
    if node.op_type == "Resize" and len(x) == rank:
        return _resize(node, x)
    if node.op_type == "Concat":
        others = [dims_of(v) for v in node.inputs]
        axis = int(attr(node, "axis", 0)) % rank
        known = [d for d in others if d is not None and len(d) == rank]
        return [None if i == axis else next((d[i] for d in known if d[i] is not None), None) for i in range(rank)]
    if node.op_type in ("Split", "Slice", "Pad") and len(x) == rank:
        axes = _touched(node, rank)
        return None if axes is None else [None if i in axes else d for i, d in enumerate(x)]
    if node.op_type == "Transpose":
        perm = attr(node, "perm", list(range(rank))[::-1])
        return [x[p] for p in perm] if len(x) == rank else None
    return None


def _touched(node: ir.Node, rank: int) -> list[int] | None:
    """Axes whose size a Split, Slice or Pad changes; None when they are computed."""
    if node.op_type == "Split":
        return [int(attr(node, "axis", 0)) % rank]
    axes = array_of(operand(node, 3))
    if node.op_type == "Pad" and operand(node, 3) is None:
        pads = array_of(operand(node, 1))
        return None if pads is None else [i for i in range(rank) if pads[i] or pads[rank + i]]
    return None if axes is None else [int(a) % rank for a in axes.reshape(-1)]


def _broadcast(shapes: list[list[Any] | None], rank: int) -> list[Any] | None:
    """A dimension is known when all operands that have it (and are not 1 there) agree."""
    if any(s is None for s in shapes):
        return None
    full = [[1] * (rank - len(s)) + s for s in shapes if s is not None]
    result = []
    for axis in range(rank):
        kinds = {s[axis] for s in full if s[axis] != 1}
        result.append(kinds.pop() if len(kinds) == 1 else None)
    return result


def _window(node: ir.Node, x: list[Any]) -> list[Any]:
    """(d + pads - reach) // stride + 1, written so that equal arithmetic gives equal text."""
    spatial = len(x) - 2
    weight = dims_of(operand(node, 1)) if node.op_type.startswith("Conv") else None
    kernel = attr(node, "kernel_shape") or (weight[2:] if weight else None)
    if kernel is None or attr(node, "auto_pad", "NOTSET") not in ("NOTSET", "VALID"):
        return [x[0]] + [None] * (spatial + 1)
    pads = attr(node, "pads", [0] * 2 * spatial)
    strides, dilations = attr(node, "strides", [1] * spatial), attr(node, "dilations", [1] * spatial)
    result: list[Any] = [x[0], None]
    for axis in range(spatial):
        dim, stride = x[2 + axis], strides[axis]
        reach = (int(kernel[axis]) - 1) * dilations[axis] + 1
        extra = pads[axis] + pads[spatial + axis] - reach
        if dim is None or attr(node, "ceil_mode", 0):
            result.append(None)
        elif node.op_type == "ConvTranspose":
            grown = attr(node, "output_padding", [0] * spatial)[axis] - extra - stride
            result.append(_plus(_times(dim, stride), grown))
        else:
            inner = _plus(dim, extra)
            result.append(_plus(dim, extra + 1) if stride == 1 else _plus(_div(inner, stride), 1))
    return result


def _wrapped(dim: Any) -> str:
    return str(dim) if re.fullmatch(r"\w+", str(dim)) else f"({dim})"


def _plus(dim: Any, number: int) -> Any:
    if number == 0:
        return dim
    if isinstance(dim, int):
        return dim + number
    # fold a trailing constant, so that (H-1)+1 is H again
    match = re.fullmatch(r"(.*[^+\-*/(])([+-]\d+)", str(dim))
    if match is not None and match.group(1).count("(") == match.group(1).count(")"):
        return _plus(match.group(1), int(match.group(2)) + number)
    return f"{dim}{number:+d}"


def _div(dim: Any, number: int) -> Any:
    """Floor division by a positive number; (d // a) // b is d // (a * b)."""
    if isinstance(dim, int):
        return dim // number
    if number == 1:
        return dim
    match = re.fullmatch(r"(\w+|\(.*\))//(\d+)", str(dim))
    if match is not None and _balanced(match.group(1)):
        return f"{match.group(1)}//{int(match.group(2)) * number}"
    return f"{_wrapped(dim)}//{number}"


def _balanced(text: str) -> bool:
    """True when the first parenthesis closes at the end: the text is one operand."""
    depth = 0
    for index, char in enumerate(text):
        depth += (char == "(") - (char == ")")
        if depth == 0 and char == ")" and index < len(text) - 1:
            return False
    return depth == 0


def _times(dim: Any, factor: Any) -> Any:
    """A product, factors in one order."""
    if isinstance(dim, int) and isinstance(factor, int):
        return dim * factor
    if factor == 1 or dim == 1:
        return dim if factor == 1 else factor
    return "*".join(sorted((_wrapped(dim), _wrapped(factor))))


def _resize(node: ir.Node, x: list[Any]) -> list[Any] | None:
    scales = array_of(operand(node, 2))
    if scales is None or scales.size != len(x):
        return None
    result = []
    for dim, scale in zip(x, scales.reshape(-1), strict=True):
        factor = float(scale)
        exact = dim is not None and factor.is_integer()
        result.append(_times(dim, int(factor)) if exact else None)
    return result


def image_size_is_fixed(graph: ir.Graph) -> bool:
    """True when a free height or width meets a constant of another size: the network runs at one image size only.

    Found where a constant (a position embedding) is added to a value of free size, and where a flattened image
    enters a matrix product. torch.export leaves such dimensions free although no other size works.
    """
    return any(_pins_size(node) for node in graph)


def _pins_size(node: ir.Node) -> bool:
    if node.op_type in ("Gemm", "MatMul") and len(node.inputs) > 1:
        left, right = dims_of(node.inputs[0]), dims_of(node.inputs[1])
        if left and right and len(right) >= 2 and array_of(node.inputs[1]) is not None:
            return not isinstance(left[-1], int)
        return False
    if node.op_type not in _BROADCAST:
        return False
    for constant_side, other in ((0, 1), (1, 0)):
        value = operand(node, constant_side)
        array, dims = array_of(value), dims_of(operand(node, other))
        if array is None or dims is None or array.ndim > len(dims):
            continue
        tail = dims[len(dims) - array.ndim :]
        if any(size != 1 and not isinstance(d, int) for size, d in zip(array.shape, tail, strict=True)):
            return True
    return False
