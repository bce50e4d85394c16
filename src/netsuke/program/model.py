"""The program in memory: what a .nsk file holds. docs/format.md is the specification.

Shapes are tuples of integers and names of free dimensions; dtypes are the strings of `DTYPES`.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np

DTYPES = ("f32", "bf16", "u8", "s8", "i32", "i64", "bool")
Dim = int | str
AttrValue = int | float | str | list[int] | list[float]


@dataclass
class Port:
    """A graph input or output."""

    name: str
    dtype: str
    shape: tuple[Dim, ...]


@dataclass
class Value:
    """What is known of a node output. `scale` and `zero` are set for codes; `source` names it in the captured graph."""

    dtype: str
    scale: float | None = None
    zero: int | None = None
    source: str = ""


@dataclass
class Node:
    """One operator call. `inputs` name ports, constants or earlier outputs; "" is an absent optional input."""

    op: str
    name: str
    inputs: list[str]
    outputs: list[str]
    attrs: dict[str, AttrValue] = field(default_factory=dict)


@dataclass
class Program:
    """Nodes in execution order with their constants (NumPy arrays; bf16 ones are uint16 arrays, listed in `bf16`)."""

    name: str
    inputs: list[Port]
    outputs: list[Port]
    nodes: list[Node]
    constants: dict[str, np.ndarray[Any, Any]] = field(default_factory=dict)
    values: dict[str, Value] = field(default_factory=dict)
    bf16: set[str] = field(default_factory=set)
    plan: str = ""
    meta: dict[str, str] = field(default_factory=dict)
