"""Something that runs a program: the compiled engine, or the reference interpreter where that is absent. It says
which.
"""

from __future__ import annotations

import importlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np

from netsuke.program.model import Program

Array = np.ndarray[Any, Any]


class _Run(Protocol):
    def __call__(self, feeds: Mapping[str, Array], taps: Sequence[str] = ()) -> dict[str, Array]: ...


@dataclass(frozen=True)
class Runner:
    """`run(feeds, taps)` gives outputs and tapped values by name; `name` says what it is, `engine` is None for the
    interpreter.
    """

    run: _Run
    name: str
    program: Program
    engine: Any = None

    def outputs(self, feeds: Mapping[str, Array]) -> list[Array]:
        """Outputs in the order of the program."""
        values = self.run(feeds)
        return [values[port.name] for port in self.program.outputs]


def runtime_available() -> bool:
    """True when the compiled runtime can be loaded."""
    try:
        importlib.import_module("netsuke._runtime")
    except ImportError:
        return False
    return True


def open_runner(program: Program, threads: int | None = None, isa: str | None = None, *, plain: bool = False) -> Runner:
    """The compiled engine on this program; the reference interpreter, named as such, when there is no compiled
    runtime. plain: see `engine.load`.
    """
    if runtime_available():
        from netsuke import engine

        loaded = engine.load(program, threads=threads, isa=isa, plain=plain)

        def run(feeds: Mapping[str, Array], taps: Sequence[str] = ()) -> dict[str, Array]:
            return dict(loaded.run(dict(feeds), taps=tuple(taps)))

        return Runner(run, f"netsuke engine ({getattr(loaded, 'isa', '') or 'compiled'})", program, loaded)
    return reference_runner(program)


def reference_runner(program: Program) -> Runner:
    """The plain-Python reference interpreter: slow, and the definition of right."""
    from netsuke.program import interpreter

    def run(feeds: Mapping[str, Array], taps: Sequence[str] = ()) -> dict[str, Array]:
        return dict(interpreter.run(program, dict(feeds), taps=tuple(taps)))

    return Runner(run, "reference interpreter", program)
