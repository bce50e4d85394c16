"""From what the user names to what is timed: files on disk that every engine can read."""

from __future__ import annotations

import importlib.util
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from netsuke.core.errors import FileError, Problem, UsageError
from netsuke.measure.engines.base import Subject
from netsuke.measure.feeds import concrete_shapes, random_feeds
from netsuke.passes import packed_report
from netsuke.program.model import Port, Program
from netsuke.program.ranges import input_ranges
from netsuke.verify.source import Shapes, capture_model, export_model, format_shapes, is_torch, model_name, parse_shapes

CALIBRATION_SAMPLES = 32  # for the competitors' own INT8; speed does not depend on more


@dataclass
class Prepared:
    """A subject without feeds: the ports, known shapes and files; `subject(batch)` adds feeds of that batch.

    precision  what rows of the compressed program are called: "int8", or "bf16" where no layer computes in integers
    """

    folder: Path
    ports: list[Port]
    shapes: Shapes
    files: dict[str, Path] = field(default_factory=dict)
    torch_spec: tuple[str, str, str] | None = None
    module: Any = None
    notes: list[str] = field(default_factory=list)
    seed: int = 0
    ranges: dict[str, tuple[float, float]] = field(default_factory=dict)
    precision: str = "int8"

    def subject(self, batch: int) -> Subject:
        shapes = concrete_shapes(self.ports, self.shapes, batch)
        feeds = random_feeds(self.ports, shapes, self.seed, self.ranges)
        return Subject(folder=self.folder, feeds=feeds, torch_spec=self.torch_spec, module=self.module, **self.files)


def program_of(item: Any) -> Program | None:
    """The program of a .nsk path, a Program, or an object that carries one as `.program`; None when it is something
    else.
    """
    from netsuke import program

    if isinstance(item, Program):
        return item
    carried = getattr(item, "program", None)
    if isinstance(carried, Program):
        return carried
    if isinstance(item, (str, Path)) and str(item).endswith(".nsk"):
        path = Path(item)
        if not path.exists():
            raise FileError(Problem("no such file", where=str(path)))
        return program.read(path)
    return None


def _write_nsk(item: Any, found: Program, folder: Path) -> Path:
    if isinstance(item, (str, Path)):
        return Path(item)
    from netsuke import program

    program.write(found, folder / "compressed.nsk")
    return folder / "compressed.nsk"


def _add_float(ready: Prepared, vs: Any, shape: Any, weights: Any) -> list[Port]:
    """Capture the float network; fills onnx, float_nsk and the torch description. Returns its ports."""
    import onnx_ir

    from netsuke import passes, program

    given = Path(vs) if isinstance(vs, (str, Path)) and str(vs).endswith(".onnx") else None
    if given is None:
        # The others get the network as it was exported, not our canonical form, whose operators they may run slowly.
        exported = export_model(vs, shape, weights)
        given = ready.folder / "float.onnx"
        onnx_ir.save(exported, given)
        graph = capture_model(exported)
    else:
        graph = capture_model(given, shape, weights)
    ready.files["onnx"] = given.resolve()
    compiled = passes.compile_program(graph, name="float")
    program.write(compiled, ready.folder / "float.nsk")
    ready.files["float_nsk"] = ready.folder / "float.nsk"
    if not isinstance(vs, (str, Path)) and is_torch(vs):
        ready.module = vs
    elif isinstance(vs, (str, Path)) and is_torch(vs):
        text = shape if isinstance(shape, str) else format_shapes(shape or {})
        ready.torch_spec = (str(model_name(vs)), str(weights or ""), text)
    return compiled.inputs


def _add_calibration(ready: Prepared, calib: Mapping[str, Any] | None) -> None:
    """Write calibration arrays by input name; random inputs where none are given, which is enough for speed."""
    path = ready.folder / "calibration.npz"
    if calib is None:
        shapes = concrete_shapes(ready.ports, ready.shapes, 1)
        samples = [
            random_feeds(ready.ports, shapes, ready.seed + 1 + i, ready.ranges) for i in range(CALIBRATION_SAMPLES)
        ]
        arrays = {p.name: np.concatenate([s[p.name] for s in samples]) for p in ready.ports}
        ready.notes.append(
            f"competitors' INT8 calibrated on {CALIBRATION_SAMPLES} random inputs: judge its speed, not its accuracy"
        )
    else:
        arrays = {name or ready.ports[0].name: np.asarray(a) for name, a in calib.items()}
    named: dict[str, Any] = dict(arrays)
    np.savez(path, **named)
    ready.files["calibration"] = path


def _shapes(shape: Any) -> Shapes:
    """ "1,3,224,224", "name=...", a mapping, or the dimensions of the only input."""
    if isinstance(shape, str):
        return parse_shapes(shape)
    return {"": tuple(shape)} if isinstance(shape, (tuple, list)) else dict(shape or {})


def prepare(
    item: Any,
    vs: Any,
    folder: Path,
    *,
    shape: Any = None,
    weights: Any = None,
    calib: Mapping[str, Any] | None = None,
    seed: int = 0,
) -> Prepared:
    """Everything the engines need on disk. `item` is a compressed program or, alone, a float network."""
    shapes: Shapes = _shapes(shape)
    ready = Prepared(folder=folder, ports=[], shapes=shapes, seed=seed)
    compressed = program_of(item)
    if compressed is None and vs is None:
        item, vs = None, item
    elif compressed is None:
        raise UsageError(
            Problem(
                "not a compressed program", where="bench", got=str(item), allowed="a .nsk file", hint="netsuke compress"
            )
        )
    if compressed is not None:
        ready.files["nsk"] = _write_nsk(item, compressed, folder).resolve()
        ready.ports, ready.ranges = compressed.inputs, input_ranges(compressed)
        if compressed.bf16 and not any(row["kind"] == "packed" for row in packed_report(compressed)):
            ready.precision = "bf16"
        known = compressed.meta.get("sample_shape", "")
        if not ready.shapes and known:
            ready.shapes = parse_shapes(known)
    if vs is not None:
        ports = _add_float(ready, vs, shape or format_shapes(ready.shapes), weights)
        ready.ports = ready.ports or ports
        if any(importlib.util.find_spec(p) for p in ("onnxruntime", "nncf")):
            _add_calibration(ready, calib)
    return ready
