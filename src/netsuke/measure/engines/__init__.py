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
    """The engine of that name; UsageError with near names when there is none."""
    if name not in NAMES:
        raise UsageError(Problem("unknown engine", got=name, allowed=near(name, NAMES)))
    found: Engine = importlib.import_module(f"netsuke.measure.engines.{name}").ENGINE
    return found


def missing(candidate: Engine, precision: str = "") -> list[str]:
    """Packages of an engine that are not installed; NNCF only counts where it is needed, for OpenVINO's INT8."""
    needed = [p for p in candidate.packages if p != "nncf" or precision == "int8"]
    return [p for p in needed if importlib.util.find_spec(p) is None]
