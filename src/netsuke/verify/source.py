"""Open what the user names as MODEL: its captured graph, its float program, and something that runs it."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from netsuke.core.errors import Problem, UnsupportedError, UsageError
from netsuke.data import Dataset, fields, load_data
from netsuke.program.model import Port, Program
from netsuke.verify.runners import Runner, open_runner

Array = np.ndarray[Any, Any]
Shapes = Mapping[str, Sequence[int]]


def parse_shapes(text: str) -> dict[str, tuple[int, ...]]:
    """ "1,3,32,32" (the only input) or "x=1,3,32,32;mask=1,16" by name; UsageError says what cannot be read.

    A dtype may follow, "ids=1,16:i64" (see `parse_dtypes`).
    """
    shapes: dict[str, tuple[int, ...]] = {}
    for part in filter(None, (p.strip() for p in text.split(";"))):
        name, equals, dims = part.partition(":")[0].rpartition("=")
        try:
            shapes[name.strip() if equals else ""] = tuple(int(d) for d in dims.replace("x", ",").split(","))
        except ValueError:
            problem = Problem("not a shape", where="--shape", got=part, allowed='"1,3,32,32" or "name=1,3,32,32"')
            raise UsageError(problem) from None
    return shapes


DTYPES = {"float32": "f32", "int64": "i64", "int32": "i32", "bool": "bool"}


def parse_dtypes(text: str) -> dict[str, str]:
    """The dtypes by name that stand behind the shapes of "ids=1,16:i64;x=1,3": i64 and, by default, f32."""
    parts = [p.partition(":") for p in text.split(";") if p.strip()]
    found = {shape.rpartition("=")[0].strip(): kind.strip() or "f32" for shape, _, kind in parts}
    wrong = [f for f in found.values() if f not in DTYPES.values()]
    if wrong:
        raise UsageError(Problem("no such dtype", where="--shape", got=wrong[0], allowed=", ".join(DTYPES.values())))
    return found


def format_shapes(shapes: Shapes) -> str:
    """The inverse of `parse_shapes`."""
    return ";".join((f"{name}=" if name else "") + ",".join(map(str, dims)) for name, dims in shapes.items())


def model_name(model: Any) -> Any:
    """MODEL as capture takes it: "models:NAME" names a reference network without doubt about a file of that name."""
    return str(model).removeprefix("models:") if isinstance(model, (str, Path)) else model


def is_torch(model: Any) -> bool:
    """True for a torch module, and for a text that names one."""
    if isinstance(model, (str, Path)):
        return not str(model).endswith((".onnx", ".onnxtxt", ".pb", ".nsk"))
    return any(c.__module__ == "torch.nn.modules.module" and c.__name__ == "Module" for c in type(model).__mro__)


def open_data(spec: Any, root: Any = None, *, role: str, preprocess: Any = None) -> Dataset | None:
    """The data set the user named, arrays or batches as one, or None when nothing was named.

    spec  what `netsuke.data.load_data` takes, an array, arrays by input name, a pair (inputs, labels), or batches of
          either, such as a loader
    """
    if spec is None or (isinstance(spec, str) and not spec):
        return None
    if hasattr(spec, "dtype"):
        return Dataset.from_arrays(np.asarray(spec))
    if isinstance(spec, Mapping):
        return Dataset.from_arrays({name: np.asarray(array) for name, array in spec.items()})
    if isinstance(spec, tuple) and len(spec) == 2 and hasattr(spec[0], "dtype"):
        return Dataset.from_arrays(np.asarray(spec[0]), np.asarray(spec[1]))
    if not isinstance(spec, (str, Path, Dataset)) and hasattr(spec, "__iter__"):
        return _from_batches(spec)
    return load_data(spec, root, role=role, preprocess=preprocess or None)


def _from_batches(batches: Iterable[Any]) -> Dataset:
    pairs = [b if isinstance(b, (tuple, list)) else (b, None) for b in batches]
    if not pairs:
        raise UsageError(Problem("the data set is empty", allowed="at least one batch"))
    x = np.concatenate([np.asarray(p[0]) for p in pairs])
    labelled = all(len(p) > 1 and p[1] is not None for p in pairs)
    y = np.concatenate([np.asarray(p[1]) for p in pairs]) if labelled else None
    return Dataset.from_arrays(x, y, source="batches given in memory")


def capture_model(model: Any, shape: Any = None, weights: Any = None, sample: Dataset | None = None) -> Any:
    """The captured graph (onnx_ir.Model). `shape` is text, a tuple, or shapes by input name; empty means not given.

    A torch network without a shape takes it from the data: one sample in a batch.
    """
    from netsuke.capture import capture
    from netsuke.models import MODELS

    dtypes = parse_dtypes(shape) if isinstance(shape, str) else {}
    if sample is not None and is_torch(model) and str(model_name(model)) not in MODELS:
        parts = fields(next(sample.batches(1))[0])
        shape = shape or {name: (1, *part.shape[1:]) for name, part in parts.items()}
        dtypes = {name: DTYPES.get(str(part.dtype), "f32") for name, part in parts.items()}
    given = _shape(model, shape)
    if _trains_in_integers(model):
        from netsuke.methods.integer._graph import quantized_graph  # refuses what no engine layer has, by name

        if isinstance(given, Mapping) and len(given) == 1:
            given = next(iter(given.values()))
        if not isinstance(given, tuple):
            raise UsageError(
                Problem("the input shape of one input is needed", got=str(given), hint="shape=(1, 3, 32, 32)")
            )
        return quantized_graph(model, given)
    return capture(model_name(model), shape=given, weights=weights or None, dtype=dtypes or "f32")


def _trains_in_integers(model: Any) -> bool:
    """True for a torch module with layers of `netsuke.nn.integer_train`, captured by their codes, or of
    `netsuke.nn.one_bit`, refused by name."""
    if not is_torch(model) or isinstance(model, (str, Path)):
        return False
    from netsuke.nn.integer_train import IntegerLayer
    from netsuke.nn.one_bit import OneBitLayer

    return any(isinstance(m, IntegerLayer | OneBitLayer) for m in model.modules())


def export_model(model: Any, shape: Any = None, weights: Any = None) -> Any:
    """The network as ONNX (onnx_ir.Model) as its exporter writes it, before anything of ours is done to it."""
    from netsuke.capture.sources import load

    dtypes = parse_dtypes(shape) if isinstance(shape, str) else {}
    return load(model_name(model), shape=_shape(model, shape), weights=weights or None, dtype=dtypes or "f32")


def _shape(model: Any, shape: Any) -> Any:
    """The shape as capture takes it: a tuple, a list of tuples, tuples by input name, or None."""
    if isinstance(model, (str, Path)) and str(model).endswith(".nsk"):
        allowed = ".onnx, .pt2, file.py:factory"
        raise UsageError(Problem("a compiled program is not a float network", got=str(model), allowed=allowed))
    if isinstance(shape, str):
        shape = parse_shapes(shape)
    if isinstance(shape, Mapping) and set(shape) == {""}:
        shape = shape[""]
    return shape or None


@dataclass
class FloatNetwork:
    """The float side of a comparison. `program` is None when only torch eager can run it; `note` says so."""

    runner: Runner | None
    program: Program | None
    graph: Any
    ports: list[Port]
    note: str
    eager: Any = None

    @property
    def name(self) -> str:
        return self.runner.name if self.runner else "PyTorch eager"

    def outputs(self, feeds: Mapping[str, Array]) -> list[Array]:
        if self.runner is not None:
            return self.runner.outputs(feeds)
        return _eager(self.eager, feeds)


def open_float(
    model: Any, *, shape: Any = None, weights: Any = None, threads: int | None = None, sample: Dataset | None = None
) -> FloatNetwork:
    """The float network, on our engine; on torch eager when it is a module with something we cannot compile."""
    from netsuke.passes import compile_program

    try:
        graph = capture_model(model, shape, weights, sample)
        program = compile_program(graph, name="float")
    except UnsupportedError:
        if not is_torch(model) or isinstance(model, (str, Path)):
            raise
        return FloatNetwork(
            None, None, None, [], "the float network has layers we cannot compile; PyTorch eager ran it", model
        )
    return FloatNetwork(open_runner(program, threads), program, graph, program.inputs, "")


def _eager(module: Any, feeds: Mapping[str, Array]) -> list[Array]:
    import torch

    with torch.inference_mode():
        found = module.eval()(*[torch.from_numpy(np.ascontiguousarray(a)) for a in feeds.values()])
    found = list(found.values()) if isinstance(found, dict) else found
    return [t.numpy() for t in (found if isinstance(found, (list, tuple)) else [found])]
