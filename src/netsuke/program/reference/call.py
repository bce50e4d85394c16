"""One operator call as a rule sees it, and the registry of rules."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from netsuke.core.errors import Problem, UsageError
from netsuke.program.calls import Attributes, registry
from netsuke.program.model import AttrValue, Node

Array = np.ndarray[Any, Any]
Rule = Callable[["Call"], list[Array]]
RULES: dict[str, Rule] = {}
rule = registry(RULES)


@dataclass(frozen=True)
class Call(Attributes):
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

    def wrong(self, what: str, got: object = "", allowed: str = "") -> UsageError:
        """The error for inputs that the operator cannot take."""
        shapes = ", ".join("absent" if x is None else str(list(x.shape)) for x in self.inputs)
        where = f"node {self.node.op} {self.node.name!r}"
        return UsageError(Problem(what, where=where, got=str(got) or f"input shapes {shapes}", allowed=allowed))
