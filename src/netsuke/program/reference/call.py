"""One operator call as a rule sees it, and the registry of rules."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from netsuke.core.errors import Problem, UsageError
from netsuke.program.model import AttrValue, Node

Array = np.ndarray[Any, Any]
Rule = Callable[["Call"], list[Array]]
RULES: dict[str, Rule] = {}


def rule(*names: str) -> Callable[[Rule], Rule]:
    """Register a rule for the operators named."""

    def add(function: Rule) -> Rule:
        for name in names:
            RULES[name] = function
        return function

    return add


@dataclass(frozen=True)
class Call:
    """Inputs (None for an absent one) and attributes with defaults filled in. bf16: the weights were stored as bf16."""

    node: Node
    inputs: list[Array | None]
    attrs: dict[str, AttrValue]
    bf16: bool = False

    def array(self, index: int) -> Array:
        """Input `index`, which must be present."""
        value = self.inputs[index]
        if value is None:
            raise self.wrong(f"input {index} is absent")
        return value

    def integer(self, key: str) -> int:
        return int(self.attrs[key])  # type: ignore[arg-type]

    def number(self, key: str) -> float:
        """A float attribute, rounded to f32 as every implementation does."""
        return float(np.float32(self.attrs[key]))  # type: ignore[arg-type]

    def number_or(self, key: str, fallback: float) -> float:
        return self.number(key) if key in self.attrs else fallback

    def word(self, key: str) -> str:
        return str(self.attrs[key])

    def ints(self, key: str) -> list[int]:
        return [int(v) for v in self.attrs[key]]  # type: ignore[union-attr]

    def clip(self) -> dict[str, Any]:
        """zero, lo, hi as keywords for the functions of `netsuke.formats`."""
        return {"zero": self.integer("zero"), "lo": self.integer("lo"), "hi": self.integer("hi")}

    def wrong(self, what: str, got: object = "", allowed: str = "") -> UsageError:
        """The error for inputs that the operator cannot take."""
        shapes = ", ".join("absent" if x is None else str(list(x.shape)) for x in self.inputs)
        where = f"node {self.node.op} {self.node.name!r}"
        return UsageError(Problem(what, where=where, got=str(got) or f"input shapes {shapes}", allowed=allowed))
