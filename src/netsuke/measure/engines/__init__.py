"""One file per engine that `netsuke bench` can measure. A file ends with `ENGINE = Engine(...)`; see base.py for the
protocol.
"""

from __future__ import annotations

import importlib
import importlib.util

from netsuke.core.errors import Problem, UsageError, near
from netsuke.measure.engines.base import Engine

NAMES = ("netsuke", "torch", "torch_compile", "onnxruntime", "openvino")


def engine(name: str) -> Engine:
    """The engine of that name; "netsuke:avx2" is ours held to one instruction set. UsageError for any other name."""
    base, _, isa = name.partition(":")
    if base not in NAMES or (isa and base != "netsuke"):
        raise UsageError(Problem("unknown engine", got=name, allowed=near(name, NAMES)))
    module = importlib.import_module(f"netsuke.measure.engines.{base}")
    found: Engine = module.with_isa(isa) if isa else module.ENGINE
    return found


def missing(candidate: Engine, precision: str = "") -> list[str]:
    """Packages of an engine that are not installed; NNCF only counts where it is needed, for OpenVINO's INT8."""
    needed = [p for p in candidate.packages if p != "nncf" or precision == "int8"]
    return [p for p in needed if importlib.util.find_spec(p) is None]
