"""The compiled module `netsuke._runtime`: finding it, its instruction sets, its errors as netsuke's."""

from __future__ import annotations

import os
from typing import Any

from netsuke.core.errors import EnvironmentProblem, FileError, NetsukeError, Problem, UnsupportedError, UsageError

ISA_VARIABLE = "NETSUKE_ISA"
_INVALID, _CORRUPT, _UNSUPPORTED, _MEMORY = 1, 2, 3, 4  # netsuke::Code


def runtime() -> Any:
    """The compiled module. Raises EnvironmentProblem, with the command that builds it, when it does not load."""
    try:
        from netsuke import _runtime
    except ImportError as error:
        raise EnvironmentProblem(
            Problem(
                "the compiled runtime netsuke._runtime is missing or does not load",
                got=str(error),
                hint="pip install -e . --no-build-isolation   (needs a C++17 compiler; cmake, ninja, nanobind and "
                "scikit-build-core from pip)",
            )
        ) from error
    return _runtime


def instruction_sets() -> dict[str, bool]:
    """The instruction sets compiled in, best first, and whether this CPU has them."""
    return dict(runtime().isas())


def choose_isa(isa: str | None) -> str:
    """The instruction set to force: the argument, else NETSUKE_ISA, else "" for the best. Raises UsageError."""
    where = "isa"
    if isa is None:
        isa, where = os.environ.get(ISA_VARIABLE, ""), ISA_VARIABLE
    if not isa:
        return ""
    known = instruction_sets()
    if not known.get(isa, False):
        what = "this CPU lacks the instruction set" if isa in known else "unknown instruction set"
        allowed = ", ".join(name for name, here in known.items() if here)
        raise UsageError(Problem(what, where=where, got=isa, allowed=allowed))
    return isa


def translate(error: Exception, where: str = "") -> NetsukeError:
    """A netsuke._runtime.Error (code, message) as the exception users catch; each line of the message is a problem."""
    code, message = (*error.args, "")[:2]
    problems = [Problem(line, where=where) for line in str(message).splitlines()]
    kinds: dict[int, type[NetsukeError]] = {_INVALID: UsageError, _CORRUPT: FileError, _UNSUPPORTED: UnsupportedError}
    if code == _MEMORY:
        return EnvironmentProblem(problems, "not enough memory")
    return kinds.get(int(code), NetsukeError)(problems)
