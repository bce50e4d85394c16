"""What a rule sees of one operator's attributes, and registries of rules: shared by reference and emulation."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

import numpy as np

from netsuke.program.model import AttrValue, Node

R = TypeVar("R", bound=Callable[..., Any])


def registry(rules: dict[str, R]) -> Callable[..., Callable[[R], R]]:
    """A decorator that puts a rule into `rules` under the names of its operators."""

    def rule(*names: str) -> Callable[[R], R]:
        def add(function: R) -> R:
            for name in names:
                rules[name] = function
            return function

        return add

    return rule


class Attributes:
    """Readers of `attrs`, the attributes of `node` with defaults filled in."""

    node: Node
    attrs: dict[str, AttrValue]

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
