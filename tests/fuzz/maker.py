"""Builds a random program while running it: each node is evaluated by the reference rule as it is added.

So shapes are known, multipliers can be chosen from the accumulators that really occur, and a node that cannot be
(window too large, result too big or not finite) is simply not added.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np

from netsuke.core.errors import NetsukeError
from netsuke.formats import ACC_LIMIT, accumulator_bound
from netsuke.program.model import Node, Port, Program, Value
from netsuke.program.opset import attributes, output_dtypes
from netsuke.program.ranges import code_ranges
from netsuke.program.reference import RULES, Call

Array = np.ndarray[Any, Any]
SIZES = (1, 1, 2, 3, 4, 5, 7, 8, 9, 13, 14, 16, 17, 20)
CHANNELS = (1, 2, 3, 4, 5, 7, 8, 9, 12, 15, 16, 17, 24, 31, 32, 33, 40, 48, 63, 64, 65, 96, 100, 127, 130)


class Maker:
    """A program under construction. `arrays` holds every value, `zeros` the zero point of values that hold codes."""

    def __init__(self, seed: int, supported: set[str] | None = None) -> None:
        self.rng = np.random.default_rng(seed)
        self.supported = supported
        self.arrays: dict[str, Array] = {}
        self.dtypes: dict[str, str] = {}
        self.zeros: dict[str, int] = {}
        self.feeds: dict[str, Array] = {}
        self.order: list[str] = []
        self.limit = 300_000 if self.chance(0.12) else 60_000  # elements of a value
        self.program = Program(f"random-{seed}", [], [], [])

    def chance(self, p: float) -> bool:
        return bool(self.rng.random() < p)

    def integer(self, low: int, high: int) -> int:
        """Uniform in [low, high]."""
        return int(self.rng.integers(low, high + 1))

    def choice(self, options: Any) -> Any:
        return options[self.integer(0, len(options) - 1)]

    def zero(self) -> int:
        return self.choice((0, 128, 255, 1, 127)) if self.chance(0.5) else self.integer(0, 255)

    def clip(self, zero: int) -> dict[str, int]:
        """lo and hi of an output: none, a fused ReLU, a ReLU6, few bits, or anything."""
        kind = self.integer(0, 5)
        if kind == 0:
            return {"lo": zero}
        if kind == 1:
            return {"lo": zero, "hi": min(255, zero + self.integer(0, 200))}
        if kind == 2:
            return {"hi": 2 ** self.integer(1, 7) - 1}
        if kind == 3:
            lo, hi = sorted((self.integer(0, 255), self.integer(0, 255)))
            return {"lo": lo, "hi": hi}
        return {}

    def scale(self) -> float:
        """A multiplier's magnitude: mostly sane, sometimes extreme."""
        if self.chance(0.06):
            return float(self.choice((0.0, 1e-44, 1e-38, 1e-10, 1e6, 1e30, 3e38)))
        return float(np.float32(10.0 ** self.rng.uniform(-1.5, 0.5)))

    def constant(self, kind: str, array: Array) -> str:
        name = f"{kind}{len(self.program.constants)}"
        self.program.constants[name] = array
        self.arrays[name] = array
        words = {"f4": "f32", "u1": "u8", "i1": "s8", "i4": "i32", "i8": "i64", "b1": "bool"}
        self.dtypes[name] = words[array.dtype.str[1:]]
        return name

    def known(self, values: list[int]) -> str:
        """A known i64 input."""
        return self.constant("k", np.asarray(values, np.int64))

    def input(self, array: Array, dtype: str, shape: tuple[int | str, ...]) -> str:
        name = f"x{len(self.feeds)}"
        self.program.inputs.append(Port(name, dtype, shape))
        self.feeds[name] = self.arrays[name] = array
        self.dtypes[name] = dtype
        if dtype == "u8":
            self.zeros[name] = self.zero()
        self.order.append(name)
        return name

    def values(self, dtype: str, keep: Callable[[Array], bool] = lambda _: True) -> list[str]:
        """Names of values (not constants) of a dtype, oldest first."""
        return [name for name in self.order if self.dtypes[name] == dtype and keep(self.arrays[name])]

    def pick(self, dtype: str, keep: Callable[[Array], bool] = lambda _: True) -> str:
        """A value of that dtype, recent ones more often; "" when there is none."""
        found = self.values(dtype, keep)
        if not found:
            return ""
        return found[-1 - min(len(found) - 1, int(self.rng.geometric(0.5)) - 1)]

    def image(self, dtype: str = "u8") -> str:
        return self.pick(dtype, lambda a: a.ndim == 4)

    def add(
        self,
        op: str,
        inputs: list[str],
        attrs: dict[str, Any] | None = None,
        *,
        outputs: int = 1,
        zero: int | None = None,
    ) -> list[str]:
        """Add a node and return its outputs; [] when the operator is not supported or the node cannot be."""
        if (self.supported is not None and op not in self.supported) or self._too_large(op, inputs):
            return []
        names = [f"v{len(self.arrays)}_{i}" for i in range(outputs)]
        node = Node(op, f"{op}_{len(self.program.nodes)}", inputs, names, dict(attrs or {}))
        call = Call(node, [self.arrays[n] if n else None for n in inputs], attributes(node), self._bf16(inputs))
        try:
            results = RULES[op](call)
        except NetsukeError:
            return []
        if not all(self._usable(result) for result in results):
            return []
        self.program.nodes.append(node)
        for name, result, dtype in zip(
            names, results, output_dtypes(node, [self.dtypes.get(n, "") for n in inputs]), strict=True
        ):
            self.arrays[name], self.dtypes[name] = result, dtype
            if dtype == "u8":
                self.zeros[name] = zero if zero is not None else self.zeros.get(inputs[0], 0)
            self.order.append(name)
        return names

    def _too_large(self, op: str, inputs: list[str]) -> bool:
        """True where broadcasting or an outer product would need gigabytes before the result could be refused."""
        if op in ("binary", "qadd", "qadd_dyadic", "qmul"):
            a, b = (self.arrays[name].shape for name in inputs)
            return math.prod(np.broadcast_shapes(a, b)) > self.limit
        if op in ("qmatmul", "matmul"):
            left, right = (self.arrays[name] for name in inputs)
            depth = max(1, left.shape[-1])
            return (left.size // depth) * (right.size // depth) > 20 * self.limit
        return False

    def _bf16(self, inputs: list[str]) -> bool:
        return any(name in self.program.bf16 for name in inputs)

    def _usable(self, result: Array) -> bool:
        if result.size > self.limit or (result.size == 0 and self.chance(0.9)):
            return False
        return result.dtype != np.float32 or bool(np.isfinite(result).all() and np.abs(result).max(initial=0) < 1e5)

    def finish(self, outputs: int = 2) -> tuple[Program, dict[str, Array]]:
        """Give the program its outputs, state accumulator bounds, drop constants that no node reads."""
        program = self.program
        made = [name for node in program.nodes for name in node.outputs]
        read = {name for node in program.nodes for name in node.inputs}
        unread = [name for name in made if name not in read]
        extra = [name for name in made if name in read]
        chosen = unread[-outputs:] + ([self.choice(extra)] if extra and self.chance(0.3) else [])
        program.outputs = [
            Port(n, self.dtypes[n], tuple(f"d{n}{i}" for i in range(self.arrays[n].ndim))) for n in chosen
        ]
        for name in made:
            zero = self.zeros.get(name)
            program.values[name] = Value(self.dtypes[name], 1.0 if zero is not None else None, zero)
        program.constants = {name: array for name, array in program.constants.items() if name in read}
        program.bf16 &= set(program.constants)
        self._state_bounds()
        return program, self.feeds

    def _state_bounds(self) -> None:
        ranges = code_ranges(self.program)
        for node in self.program.nodes:
            if "acc_bound" not in node.attrs:
                continue
            w = self.program.constants[node.inputs[1]]
            bias = self.program.constants.get(node.inputs[4])
            lo, hi = ranges.get(node.inputs[0], (0, 255))
            bound = int(accumulator_bound(w, int(node.attrs["x_zero"]), lo, hi, bias).max())
            node.attrs["acc_bound"] = min(ACC_LIMIT, bound + (self.integer(0, 2**20) if self.chance(0.1) else 0))


def grow(maker: Maker, makers: list[Callable[[Maker], None]], nodes: int) -> None:
    """Add about `nodes` nodes with randomly chosen makers."""
    for _ in range(nodes * 6):
        if len(maker.program.nodes) >= nodes:
            return
        maker.choice(makers)(maker)
