"""From a trained network to the canonical ONNX graph.

Belongs here: reading ONNX and PyTorch, checking what is read, bringing opsets and data types to one form, constant
folding, shape inference, BatchNorm folding, recognising SiLU, GELU, LayerNorm and kin, the list of supported
operators, costs per layer. Does not belong here: anything about the program (`netsuke.passes`) or about
quantization methods.

Contract: `capture(model)` returns an `onnx_ir.Model` at opset 24 of the default domain whose nodes all pass
`supported.check_supported`, with dtype and rank known for every value, float weights as float32 initializers, no
functions, no Constant, Identity or Dropout nodes, activations as Relu, Clip, Swish (SiLU), HardSwish, Mish, Gelu
(erf and tanh), LayerNormalization as one node; Conv weights OIHW as in ONNX. Q/DQ pairs of quantized files are
kept; Quant, BipolarQuant and MultiThreshold of QONNX files become them (`qonnx`, `qonnx_thresholds`); `arithmetic`
marks whose rounding they get. Dynamic dimensions stay dynamic. To accept a further operator: add it to
`supported.SUPPORTED` and to the lowering of `netsuke.passes`, or add a rule to `decompose`.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import onnx_ir as ir

from netsuke.core.errors import FileError, NetsukeError, Problem, UsageError

if TYPE_CHECKING:
    import onnx
    import torch

__all__ = ["capture"]


def capture(
    model: str | Path | ir.Model | onnx.ModelProto | torch.nn.Module | Any,
    *,
    shape: Any = None,
    weights: str | Path | None = None,
    dtype: str | Mapping[str, str] = "f32",
) -> ir.Model:
    """The canonical graph of a network.

    model    path of an `.onnx` file or of a `.pt2` file of torch.export.save, `file.py:factory`, the name of a
             reference network, an
             onnx_ir.Model or onnx.ModelProto (not changed), a torch.nn.Module, or an object that brings its own
             graph by `__captured__() -> onnx_ir.Model`, as a network with quantizers does
    shape    shape of one input batch, (1, 3, 224, 224), a list of shapes, or shapes by input name; needed for PyTorch
             modules only. For ONNX models it fixes free dimensions of the inputs when given
    weights  `.safetensors` or `.pth` state dict for PyTorch modules
    dtype    input dtype of PyTorch modules, "f32", "i64", "i32" or "bool", or dtypes by input name

    Raises FileError (missing, damaged), UsageError (wrong arguments), UnsupportedError (every node that cannot be
    compiled).
    """
    from netsuke.capture.sources import load
    from netsuke.capture.symbolic import image_size_is_fixed

    found = _canonical(load(model, shape=shape, weights=weights, dtype=dtype))
    if "netsuke.exported" in found.metadata_props and image_size_is_fixed(found.graph):
        found = _canonical(load(model, shape=shape, weights=weights, dtype=dtype, free_image=False))
    found.metadata_props.pop("netsuke.exported", None)
    return found


def _canonical(model: ir.Model) -> ir.Model:
    from netsuke.capture.canonical import canonical
    from netsuke.capture.shapes import forget_shapes

    forget_shapes(model.graph)
    if not model.graph.outputs:
        raise UsageError(Problem("the model has no outputs"))
    try:
        return canonical(model)
    except (NetsukeError, MemoryError):
        raise
    except Exception as error:
        # The checks at reading cannot know every way in which attributes and shapes of a file contradict each other.
        got = f"{type(error).__name__}: {' '.join(str(error).split())[:240]}"
        raise FileError(Problem("the model contradicts itself", got=got)) from error
