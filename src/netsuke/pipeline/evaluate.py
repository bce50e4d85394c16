"""What the user may give to judge a network by: data with labels, or a function of their own."""

from __future__ import annotations

import importlib.util
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from netsuke.core.errors import FileError, Problem, UsageError


def load_function(spec: str) -> Any:
    """ "file.py:name" as the function it names, anything else as it is. Naming the file is asking to run it."""
    file, _, name = spec.rpartition(":")
    if not (file.endswith(".py") and name.isidentifier()):
        return spec
    path = Path(file)
    if not path.is_file():
        raise FileError(Problem("no such file", where="--eval", got=file))
    found = importlib.util.spec_from_file_location(f"netsuke_user_{path.stem}", path)
    if found is None or found.loader is None:
        raise FileError(Problem("not a Python file", where="--eval", got=file))
    module = importlib.util.module_from_spec(found)
    found.loader.exec_module(module)
    function = getattr(module, name, None)
    if not callable(function):
        known = ", ".join(n for n, v in vars(module).items() if callable(v) and not n.startswith("_"))
        raise UsageError(Problem("no such function in the file", where="--eval", got=spec, allowed=known))
    return function


def metric_function(function: Callable[[Any], Any]) -> Callable[[Any], Mapping[str, float]]:
    """A user's metric as one that returns metrics by name: a bare number gets the function's name."""

    def call(predict: Any) -> Mapping[str, float]:
        found = function(predict)
        return found if isinstance(found, Mapping) else {getattr(function, "__name__", "metric"): float(found)}

    return call
