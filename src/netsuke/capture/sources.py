"""Find out what the user gave (a path, a name, an object) and load it as an onnx_ir model."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import onnx
import onnx_ir as ir

from netsuke.capture.arithmetic import quantized_elsewhere, quantized_here
from netsuke.capture.onnx_file import check_proto, read_onnx
from netsuke.core.errors import FileError, Problem, UsageError, near


def load(model: Any, *, shape: Any, weights: Any, dtype: Any, free_image: bool = True) -> ir.Model:
    """The model as onnx_ir holds it; objects given by the caller are copied.

    An object with a method `__captured__() -> onnx_ir.Model` brings its own graph: a network in training is not what
    torch.export should trace.
    """
    if hasattr(type(model), "__captured__"):
        if weights is not None:
            raise UsageError(Problem("this network has its weights", got=str(weights), hint="leave weights out"))
        return _fixed(model.__captured__(), shape)
    if isinstance(model, ir.Model):
        return _fixed(model.clone(deep_copy=False), shape)
    if isinstance(model, onnx.ModelProto):
        copy = onnx.ModelProto()
        copy.CopyFrom(model)
        return _fixed(quantized_elsewhere(check_proto(copy)), shape)
    if isinstance(model, (str, Path)):
        return _from_text(str(model), shape, weights, dtype, free_image)
    if hasattr(model, "forward") and hasattr(model, "state_dict"):
        return _export(model, shape, weights, dtype, free_image)
    if type(model).__name__ == "ExportedProgram":
        from netsuke.capture.torch_export import to_onnx

        return to_onnx(model)
    raise UsageError(
        Problem(
            "not a network",
            got=type(model).__name__,
            allowed="a path, a torch.nn.Module, an onnx_ir.Model or an onnx.ModelProto",
        )
    )


def _from_text(text: str, shape: Any, weights: Any, dtype: Any, free_image: bool) -> ir.Model:
    from netsuke.models import MODELS

    path = Path(text)
    if path.suffix == ".pt2":
        from netsuke.capture.torch_export import load_pt2

        return load_pt2(path)
    file, _, name = text.rpartition(":")
    if file.endswith(".py") and name.isidentifier():
        from netsuke.capture.torch_export import load_factory

        return _export(load_factory(text), shape, weights, dtype, free_image)
    if path.suffix in (".onnx", ".onnxtxt", ".pb") or path.is_file():
        if weights is not None:
            raise UsageError(Problem("an ONNX file has its own weights", got=str(weights), hint="leave weights out"))
        return _fixed(quantized_elsewhere(read_onnx(path)), shape)
    if text in MODELS:
        from netsuke.models import build

        entry = MODELS[text]
        return _export(build(text, weights=weights), shape or entry.shapes, None, entry.dtypes, free_image)
    raise FileError(
        Problem(
            "no such file or reference network",
            got=text,
            allowed=near(text, MODELS),
            hint="a path of an .onnx or .pt2 file, or file.py:factory",
        )
    )


def _export(module: Any, shape: Any, weights: Any, dtype: Any, free_image: bool) -> ir.Model:
    from netsuke.capture.torch_export import export_module

    if shape is None:
        raise UsageError(Problem("the input shape of a PyTorch network is needed", hint="--shape 1,3,224,224"))
    if weights is not None:
        from netsuke.models import load_weights

        load_weights(module, Path(weights))
    model = quantized_here(export_module(module, shape, dtype, free_image=free_image))
    if free_image:
        model.metadata_props["netsuke.exported"] = "1"
    return model


def _fixed(model: ir.Model, shape: Any) -> ir.Model:
    """Fix free dimensions of the inputs to `shape`; a contradiction with a fixed dimension is an error."""
    if shape is None:
        return model
    inputs = [v for v in model.graph.inputs if not v.is_initializer()]
    if isinstance(shape, Mapping):
        names = [v.name or "" for v in inputs]
        unknown = [
            Problem("no such input", where="shape", got=n, allowed=", ".join(names)) for n in shape if n not in names
        ]
        if unknown or len(shape) != len(names):
            raise UsageError(
                unknown or [Problem("one shape per input is needed", got=", ".join(shape), allowed=", ".join(names))]
            )
        shape = [shape[name] for name in names]
    shapes = [tuple(s) for s in shape] if shape and isinstance(shape[0], (tuple, list)) else [tuple(shape)]
    if len(shapes) != len(inputs):
        raise UsageError(Problem("one shape per input is needed", got=str(len(shapes)), allowed=str(len(inputs))))
    problems = []
    for value, wanted in zip(inputs, shapes, strict=True):
        given = list(value.shape) if value.shape is not None else [None] * len(wanted)
        fits = len(given) == len(wanted) and all(
            not isinstance(g, int) or g == w for g, w in zip(given, wanted, strict=True)
        )
        if not fits:
            problems.append(
                Problem("shape does not fit the input", where=value.name or "", got=str(wanted), allowed=str(given))
            )
        value.shape = ir.Shape(
            [g if isinstance(g, int) or i == 0 else w for i, (g, w) in enumerate(zip(given, wanted, strict=False))]
        )
    if problems:
        raise UsageError(problems)
    return model
