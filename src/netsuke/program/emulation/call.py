"""One operator call of the emulation, and the registry of its rules."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from torch import Tensor

from netsuke.program.model import AttrValue, Node

Rule = Callable[["Call"], list[Tensor]]
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
    """Inputs (None where absent; codes as f32), attributes with defaults, dtype words of inputs and outputs."""

    node: Node
    inputs: list[Tensor | None]
    attrs: dict[str, AttrValue]
    dtypes: list[str]
    out_dtypes: list[str]

    def tensor(self, index: int) -> Tensor:
        value = self.inputs[index]
        if value is None:
            raise ValueError(f"{self.node.name}: input {index} is absent")
        return value

    def integer(self, key: str) -> int:
        return int(self.attrs[key])  # type: ignore[arg-type]

    def number(self, key: str) -> float:
        return float(np.float32(self.attrs[key]))  # type: ignore[arg-type]

    def number_or(self, key: str, fallback: float) -> float:
        return self.number(key) if key in self.attrs else fallback

    def word(self, key: str) -> str:
        return str(self.attrs[key])

    def ints(self, key: str) -> list[int]:
        return [int(v) for v in self.attrs[key]]  # type: ignore[union-attr]

    def ints_of(self, index: int) -> list[int]:
        """A known i64 input as a list."""
        return [int(v) for v in self.tensor(index).reshape(-1).tolist()]

    def clip(self) -> dict[str, Any]:
        return {"zero": self.integer("zero"), "lo": self.integer("lo"), "hi": self.integer("hi")}
