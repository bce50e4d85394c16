"""Which operators the compiler takes, and in which forms.

Everything it does not take is listed in one UnsupportedError.

`SUPPORTED` maps an operator of the default domain to a check that returns what is wrong with a node ("" when
nothing is). A test keeps this table and the lowering of `netsuke.passes` equal.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import onnx_ir as ir

from netsuke.capture.graph import array_of, attr, dims_of, is_constant, made_by, operand, rank_of
from netsuke.core.errors import Problem, UnsupportedError

Check = Callable[[ir.Node], str]


def check_supported(model: ir.Model) -> None:
    """Raise one UnsupportedError that lists every node the compiler cannot take."""
    problems = []
    for node in model.graph:
        reason = unsupported_reason(node)
        if reason:
            problems.append(_problem(node, reason))
    if problems:
        count = len(problems)
        raise UnsupportedError(
            problems, summary=f"{count} node{'s' if count > 1 else ''} of the network cannot be compiled"
        )


def unsupported_reason(node: ir.Node) -> str:
    """What is wrong with the node, or ""."""
    if node.domain == "netsuke":
        return ""
    if node.domain != "" or node.op_type not in SUPPORTED:
        return "no such operator in netsuke"
    if any(r is not None and r > 8 for r in (rank_of(v) for v in [*node.inputs, *node.outputs])):
        return "rank above 8"
    return SUPPORTED[node.op_type](node)


def _problem(node: ir.Node, reason: str) -> Problem:
    domain = f"{node.domain}::" if node.domain else ""
    shapes = ", ".join(str(dims_of(v)) if v is not None else "-" for v in node.inputs)
    hint = _HINTS.get(node.op_type, "leave this part out of the exported network and run it before or after")
    return Problem(f"{domain}{node.op_type}: {reason}", where=node.name or "", got=f"input shapes {shapes}", hint=hint)


_STATIC = (
    "dynamic quantization scales every input anew; compress the float network with calibration data "
    "(netsuke compress model.onnx --calib DATA), or quantize statically"
)
_HINTS = {
    "NonMaxSuppression": "export the detector without its post-processing and run it on the outputs",
    "TopK": "export without top-k and take it from the outputs",
    "Loop": "export with a fixed number of steps",
    "Scan": "export with a fixed number of steps",
    "If": "export with the branch decided: torch.export specialises Python conditions",
    "DynamicQuantizeLinear": _STATIC,
    "ConvInteger": _STATIC,
    "MatMulInteger": _STATIC,
    "DynamicQuantizeMatMul": _STATIC,
    "DynamicQuantizeLSTM": _STATIC,
    "Attention": "export at opset 22 or lower: attention is then written as MatMul and Softmax",
}


def _ok(_: ir.Node) -> str:
    return ""


def _weight_constant(value: ir.Value | None) -> bool:
    dequantize = made_by(value, "DequantizeLinear")
    return is_constant(value) or (dequantize is not None and is_constant(dequantize.inputs[0]))


def _window(node: ir.Node, spatial: int) -> str:
    """Lengths and signs of the attributes of a convolution or pool."""
    for name, length, least in (
        ("kernel_shape", spatial, 1),
        ("strides", spatial, 1),
        ("dilations", spatial, 1),
        ("pads", 2 * spatial, 0),
        ("output_padding", spatial, 0),
    ):
        given = attr(node, name)
        if given is not None and (
            len(given) != length or min(given, default=least) < least or max(given, default=0) > 2**20
        ):
            return f"{name} {given} of {spatial} spatial dimensions"
    return ""


def _channels(node: ir.Node) -> str:
    """Weight, groups and input channels must fit."""
    x, weight, groups = dims_of(node.inputs[0]), dims_of(node.inputs[1]), int(attr(node, "group", 1))
    if x is None or weight is None or len(weight) != len(x):
        return "the weight does not have the rank of the input"
    if not all(isinstance(d, int) and d > 0 for d in weight):
        return f"weight of shape {weight}"
    if groups < 1 or weight[0] % groups:
        return f"{weight[0]} channels in {groups} groups"
    wanted = weight[1] * groups if node.op_type == "Conv" else weight[0]
    if isinstance(x[1], int) and x[1] != wanted:
        return f"{x[1]} input channels, but the weight is for {wanted}"
    kernel = attr(node, "kernel_shape")
    if kernel is not None and list(kernel) != list(weight[2:]):
        return f"kernel_shape {kernel} with a weight of shape {weight}"
    bias = array_of(operand(node, 2))
    outs = weight[0] if node.op_type == "Conv" else weight[1] * groups
    return f"bias of shape {list(bias.shape)} for {outs} channels" if bias is not None and bias.shape != (outs,) else ""


def _conv(node: ir.Node) -> str:
    rank = rank_of(node.inputs[0])
    if rank not in (3, 4):
        return f"only 1-d and 2-d convolutions (input rank {rank})"
    if not _weight_constant(operand(node, 1)):
        return "the weight is not a constant"
    if operand(node, 2) is not None and not _weight_constant(operand(node, 2)):
        return "the bias is not a constant"
    return _window(node, rank - 2) or _channels(node) or _auto_pad(node)


def _auto_pad(node: ir.Node) -> str:
    mode = attr(node, "auto_pad", "NOTSET")
    if mode in ("NOTSET", "VALID", ""):
        return ""
    dims = dims_of(node.inputs[0])
    if dims is None or not all(isinstance(d, int) for d in dims[2:]):
        return f"auto_pad {mode} with a dynamic image size"
    return ""


def _conv_transpose(node: ir.Node) -> str:
    if attr(node, "auto_pad", "NOTSET") not in ("NOTSET", "VALID") or "output_shape" in node.attributes:
        return "auto_pad and output_shape of ConvTranspose"
    return _conv(node)


def _pool(node: ir.Node) -> str:
    if rank_of(node.inputs[0]) not in (3, 4):
        return f"only 1-d and 2-d pooling (input rank {rank_of(node.inputs[0])})"
    if len(node.outputs) > 1 and (list(node.outputs[1].uses()) or node.outputs[1].is_graph_output()):
        return "indices of MaxPool"
    if int(attr(node, "storage_order", 0)):
        return "storage_order"
    if wrong := _window(node, len(dims_of(node.inputs[0]) or ()) - 2):
        return wrong
    if len(attr(node, "kernel_shape", [])) != len(dims_of(node.inputs[0]) or ()) - 2:
        return "kernel_shape does not fit the input"
    if node.op_type == "AveragePool" and any(d != 1 for d in attr(node, "dilations", [1])):
        return "dilated AveragePool"
    return _auto_pad(node)


def _batchnorm(node: ir.Node) -> str:
    return "training mode or computed statistics" if attr(node, "training_mode", 0) else "statistics are not constants"


def _constant_axes(node: ir.Node) -> str:
    axes = operand(node, 1)
    return "" if axes is None or is_constant(axes) else "axes are not a constant"


def _recurrent(node: ir.Node) -> str:
    if not (is_constant(operand(node, 1)) and is_constant(operand(node, 2))):
        return "weights are not constants"
    if operand(node, 4) is not None:
        return "sequence_lens"
    if operand(node, 7) is not None or attr(node, "clip") is not None or int(attr(node, "input_forget", 0)):
        return "peepholes, clip or input_forget"
    standard = {"LSTM": ["Sigmoid", "Tanh", "Tanh"], "GRU": ["Sigmoid", "Tanh"]}[node.op_type]
    wanted = standard * (2 if attr(node, "direction", "forward") == "bidirectional" else 1)
    given = attr(node, "activations")
    if given is not None and [str(a).lower() for a in given] != [a.lower() for a in wanted]:
        return f"activations {given}"
    return "layout 1" if int(attr(node, "layout", 0)) else ""


def _resize(node: ir.Node) -> str:
    if attr(node, "mode", "nearest") not in ("nearest", "linear"):
        return f"mode {attr(node, 'mode')}"
    coord = attr(node, "coordinate_transformation_mode", "half_pixel")
    if coord not in ("half_pixel", "align_corners", "asymmetric", "pytorch_half_pixel"):
        return f"coordinate_transformation_mode {coord}"
    if int(attr(node, "antialias", 0)) or int(attr(node, "exclude_outside", 0)) or attr(node, "axes") is not None:
        return "antialias, exclude_outside or axes"
    if attr(node, "keep_aspect_ratio_policy", "stretch") != "stretch":
        return "keep_aspect_ratio_policy"
    rank = rank_of(node.inputs[0])
    return "" if rank in (3, 4) else f"input rank {rank}"


def _pad(node: ir.Node) -> str:
    if attr(node, "mode", "constant") not in ("constant", "reflect", "edge"):
        return f"mode {attr(node, 'mode')}"
    if operand(node, 3) is not None and not is_constant(operand(node, 3)):
        return "axes are not a constant"
    return "" if operand(node, 2) is None or is_constant(operand(node, 2)) else "the value is not a constant"


def _prelu(node: ir.Node) -> str:
    slope = array_of(operand(node, 1))
    if slope is None:
        return "the slope is not a constant"
    rank = rank_of(node.inputs[0]) or 0
    shape = [1] * (rank - slope.ndim) + list(slope.shape)
    varying = [i for i, d in enumerate(shape) if d != 1]
    return "" if varying in ([], [1]) else "the slope varies along other axes than the channel"


def _arg(node: ir.Node) -> str:
    return "select_last_index" if int(attr(node, "select_last_index", 0)) else ""


def _mod(node: ir.Node) -> str:
    floats = node.outputs[0].dtype == ir.DataType.FLOAT
    return "fmod 1" if int(attr(node, "fmod", 0)) and not floats else ""


def _if(_: ir.Node) -> str:
    return "the condition is not a constant"


def _quantize(node: ir.Node) -> str:
    if not is_constant(operand(node, 1)) or (operand(node, 2) is not None and not is_constant(operand(node, 2))):
        return "scale and zero point must be constants"
    if int(attr(node, "block_size", 0)):
        return "" if is_constant(node.inputs[0]) else "blocked quantization of an activation"
    kind = (
        node.outputs[0].dtype
        if node.op_type == "QuantizeLinear"
        else (node.inputs[0].dtype if node.inputs[0] else None)
    )
    if is_constant(node.inputs[0]):
        return ""
    if kind not in (ir.DataType.UINT8, ir.DataType.INT8):
        return f"activations quantized to {kind.name if kind else 'an unknown type'}"
    scale = array_of(node.inputs[1])
    return "" if scale is not None and scale.size == 1 else "an activation quantized per channel"


def _cast(node: ir.Node) -> str:
    target = ir.DataType(int(attr(node, "to", 1)))
    known = (ir.DataType.FLOAT, ir.DataType.INT64, ir.DataType.INT32, ir.DataType.BOOL, ir.DataType.UINT8)
    return "" if target in known else f"cast to {target.name}"


def _split(node: ir.Node) -> str:
    return "sizes are not a constant" if operand(node, 1) is not None and not is_constant(operand(node, 1)) else ""


_PLAIN = [
    "Abs",
    "Add",
    "And",
    "ArgMax",
    "Ceil",
    "Clip",
    "Concat",
    "ConstantOfShape",
    "Constant",
    "Cos",
    "DepthToSpace",
    "Div",
    "Elu",
    "Equal",
    "Erf",
    "Exp",
    "Expand",
    "Flatten",
    "Floor",
    "Gather",
    "Gelu",
    "Gemm",
    "GlobalAveragePool",
    "GlobalMaxPool",
    "Greater",
    "GreaterOrEqual",
    "HardSigmoid",
    "HardSwish",
    "Identity",
    "IsNaN",
    "LayerNormalization",
    "LeakyRelu",
    "Less",
    "LessOrEqual",
    "Log",
    "LogSoftmax",
    "MatMul",
    "Max",
    "Min",
    "Mish",
    "Mul",
    "Neg",
    "Not",
    "Or",
    "Pow",
    "Range",
    "Reciprocal",
    "Relu",
    "Reshape",
    "Round",
    "Shape",
    "Sigmoid",
    "Sign",
    "Sin",
    "Slice",
    "Softmax",
    "Softplus",
    "SpaceToDepth",
    "Sqrt",
    "Sub",
    "Swish",
    "Tanh",
    "Tile",
    "Transpose",
    "Where",
    "Xor",
]
_REDUCES = ("Mean", "Sum", "Max", "Min", "Prod", "L1", "L2", "SumSquare", "LogSumExp")

SUPPORTED: dict[str, Check] = {
    **dict.fromkeys(_PLAIN, _ok),
    **{f"Reduce{kind}": _constant_axes for kind in _REDUCES},
    "ArgMax": _arg,
    "AveragePool": _pool,
    "BatchNormalization": _batchnorm,
    "Cast": _cast,
    "Conv": _conv,
    "ConvTranspose": _conv_transpose,
    "DequantizeLinear": _quantize,
    "GRU": _recurrent,
    "If": _if,
    "LSTM": _recurrent,
    "MaxPool": _pool,
    "Mod": _mod,
    "PRelu": _prelu,
    "Pad": _pad,
    "QuantizeLinear": _quantize,
    "Resize": _resize,
    "Split": _split,
    "Squeeze": _constant_axes,
    "Unsqueeze": _constant_axes,
}


def describe(node: ir.Node) -> dict[str, Any]:
    """Name, operator and shapes of a node, for reports."""
    return {
        "name": node.name or "",
        "op": node.op_type,
        "inputs": [dims_of(v) for v in node.inputs],
        "outputs": [dims_of(v) for v in node.outputs],
    }
