"""One operator call of the emulation, and the registry of its rules."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from torch import Tensor

from netsuke.program.calls import Attributes, registry
from netsuke.program.model import AttrValue, Node

Rule = Callable[["Call"], list[Tensor]]
RULES: dict[str, Rule] = {}
rule = registry(RULES)


@dataclass(frozen=True)
class Call(Attributes):
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

    def ints_of(self, index: int) -> list[int]:
        """A known i64 input as a list."""
        return [int(v) for v in self.tensor(index).reshape(-1).tolist()]
