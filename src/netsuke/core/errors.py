"""Errors that name what, where, got, allowed and what to try.

Every problem a user can cause is a `Problem`; an operation collects all of them before slow work starts and raises one
`NetsukeError` that lists them. Exit codes of the command line follow the class (see `netsuke.cli`).
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable
from dataclasses import dataclass


@dataclass(frozen=True)
class Problem:
    """One thing that is wrong: what it is, where it is, what was found, what is allowed, what to try."""

    what: str
    where: str = ""
    got: str = ""
    allowed: str = ""
    hint: str = ""

    def __str__(self) -> str:
        parts = [f"  {self.where}  " if self.where else "  ", self.what]
        for label, value in (("got", self.got), ("allowed", self.allowed), ("try", self.hint)):
            if value:
                parts.append(f"    {label}: {value}")
        return "".join(parts)


class NetsukeError(Exception):
    """A list of problems found in one go. `exit_code` is what the command line returns."""

    exit_code = 2

    def __init__(self, problems: Problem | str | Iterable[Problem], summary: str = "") -> None:
        if isinstance(problems, str):
            problems = Problem(problems)
        self.problems: tuple[Problem, ...] = (problems,) if isinstance(problems, Problem) else tuple(problems)
        self.summary = summary
        super().__init__(str(self))

    def __str__(self) -> str:
        count = len(self.problems)
        head = self.summary or (f"{count} problem{'s' if count != 1 else ''}")
        return "\n".join([head, *map(str, self.problems)])


class UsageError(NetsukeError):
    """Wrong use: an unknown name, an option that cannot be, an input of the wrong shape."""


class UnsupportedError(NetsukeError):
    """The network holds something netsuke cannot take; every such place is listed."""


class FileError(NetsukeError):
    """A file is missing, damaged or of another kind than expected."""


class ContractMissed(NetsukeError):
    """A result was written, but the contract (size, drop, time) was not met."""

    exit_code = 3


class CheckFailed(NetsukeError):
    """A check or a limit failed."""

    exit_code = 4


class EnvironmentProblem(NetsukeError):
    """Something of the environment is missing: a compiled runtime, an extra, a system tool."""

    exit_code = 5


def near(name: str, known: Iterable[str], count: int = 3) -> str:
    """Near matches of a mistyped name as text for `Problem.allowed`, or the first few known names."""
    names = sorted(known)
    matches = difflib.get_close_matches(name, names, n=count, cutoff=0.5)
    if matches:
        return "did you mean " + ", ".join(matches) + "?"
    shown = ", ".join(names[:8])
    return shown + (f", ... ({len(names)} in all)" if len(names) > 8 else "")
