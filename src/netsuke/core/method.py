"""The `Method` record and the registry of all methods.

A method lives in one file under `netsuke.methods.<room>` and ends with `METHOD = register(Method(...))`.
Catalogue, docs, command-line completion, support matrix and contract tests are generated from these records.
Importing a record must not import torch.
"""

from __future__ import annotations

import functools
import importlib
import pkgutil
from collections.abc import Callable
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from typing import Any

from netsuke.core.errors import Problem, UsageError, near

NEEDS = ("data", "labels", "gradients", "training")
TOUCHES = ("weights", "activations", "graph")
STATUSES = ("stable", "trial")


@dataclass(frozen=True)
class Method:
    """One entry of the catalogue.

    name        "room/method", e.g. "quantize/minmax"
    purpose     one line
    paper       id of the row of the ledger this method belongs to
    config      frozen dataclass with defaults; its fields are the keys of the plan
    apply       the transform or rule; its signature is fixed by the room (see the room's docstring)
    needs       subset of NEEDS
    touches     subset of TOUCHES
    exports     program operators that make it real, e.g. ("qconv", "qlinear"); empty when nothing new has to run
    status      one of STATUSES
    cost        one line: what it costs to run
    """

    name: str
    purpose: str
    paper: str
    config: type
    apply: Callable[..., Any]
    needs: tuple[str, ...] = ()
    touches: tuple[str, ...] = ()
    exports: tuple[str, ...] = ()
    status: str = "stable"
    cost: str = ""
    tags: tuple[str, ...] = field(default=())

    @property
    def room(self) -> str:
        return self.name.partition("/")[0]


_REGISTRY: dict[str, Method] = {}


def register(method: Method) -> Method:
    """Add a record; a second record of the same name, an unknown need, touch or status is a programming error."""
    if method.name in _REGISTRY:
        raise ValueError(f"method {method.name!r} is registered twice")
    for label, values, allowed in (("needs", method.needs, NEEDS), ("touches", method.touches, TOUCHES)):
        for value in values:
            if value not in allowed:
                raise ValueError(f"{method.name}: {label} {value!r} is not one of {allowed}")
    if method.status not in STATUSES:
        raise ValueError(f"{method.name}: status {method.status!r} is not one of {STATUSES}")
    _REGISTRY[method.name] = method
    return method


@functools.cache  # a lookup of a record must not list folders
def load_all() -> None:
    """Import every file of every room of `netsuke.methods`, so that all records exist; once a process."""
    # By name, because core imports no other room: the catalogue is found, not depended on.
    catalogue = importlib.import_module("netsuke.methods")
    for module in pkgutil.walk_packages(catalogue.__path__, "netsuke.methods."):
        if not module.name.rpartition(".")[2].startswith("_"):
            importlib.import_module(module.name)


def methods(pattern: str = "*") -> dict[str, Method]:
    """The records whose names fit a shell pattern ("quantize/*") or lie in a room ("quantize"), by name, sorted;
    UsageError when there is none."""
    load_all()
    wanted = pattern if "*" in pattern or "/" in pattern else f"{pattern}/*"
    found = {name: record for name, record in sorted(_REGISTRY.items()) if fnmatchcase(name, wanted)}
    if not found:
        rooms = sorted({record.room for record in _REGISTRY.values()})
        raise UsageError(Problem("no method matches", got=pattern, allowed=near(pattern, [*_REGISTRY, *rooms])))
    return found


def find(name: str) -> Method:
    """The record of that name; UsageError with near names when there is none."""
    table = methods()
    if name not in table:
        raise UsageError(Problem("unknown method", got=name, allowed=near(name, table), hint="netsuke methods"))
    return table[name]
