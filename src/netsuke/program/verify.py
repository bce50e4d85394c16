"""Checks a program against every rule of docs/format.md. All problems are listed at once, each with its node."""

from __future__ import annotations

import math
from collections import Counter
from typing import Any

import numpy as np

from netsuke.core.errors import FileError, Problem, near
from netsuke.program import checks
from netsuke.program.checks import NodeView
from netsuke.program.checks_binary import BINARY_CHECKS
from netsuke.program.model import DTYPES, Node, Port, Program
from netsuke.program.opset import OPERATORS, attributes, output_dtypes
from netsuke.program.ranges import bit_channels, code_ranges
from netsuke.program.signature import REQUIRED, Attr, Input

MAX_PROBLEMS = 50
CHECKS = {**checks.CHECKS, **BINARY_CHECKS}
_NUMPY = {"f32": "f4", "bf16": "u2", "u8": "u1", "s8": "i1", "i32": "i4", "i64": "i8", "bool": "?"}


def verify(program: Program, where: str = "program") -> None:
    """Raise FileError listing every rule of docs/format.md that the program breaks; return None when it breaks none."""
    found = _Verifier(program).run()
    if found:
        count = len(found)
        head = (
            f"{where}: {count if count < MAX_PROBLEMS else f'{MAX_PROBLEMS} or more'} problem{'s' if count > 1 else ''}"
        )
        raise FileError(found[:MAX_PROBLEMS], summary=head)


def constant_dtype(program: Program, name: str) -> str:
    """dtype word of a constant; "" when its NumPy dtype has none."""
    kind = program.constants[name].dtype.newbyteorder("=")
    if name in program.bf16:
        return "bf16" if kind == np.uint16 else ""
    return next((word for word, code in _NUMPY.items() if word != "bf16" and np.dtype(code) == kind), "")


class _Verifier:
    """One pass over the program; `dtypes` and `known` grow as nodes are passed."""

    def __init__(self, program: Program) -> None:
        self.program = program
        self.problems: list[Problem] = []
        self.dtypes: dict[str, str] = {}
        self.known: set[str] = set()
        self.used: set[str] = set()

    def say(self, what: str, where: str, got: object = "", allowed: str = "", hint: str = "") -> None:
        self.problems.append(Problem(what, where=where, got=str(got)[:160], allowed=allowed, hint=hint))

    def run(self) -> list[Problem]:
        program = self.program
        for port in program.inputs:
            self._port(port, f"input {port.name!r}")
            self._define(port.name, port.dtype, f"input {port.name!r}")
        for name in program.constants:
            self._constant(name)
        for name in program.bf16 - set(program.constants):
            self.say("listed as bf16 but not a constant", f"constant {name!r}")
        for name, count in Counter(node.name for node in program.nodes).items():
            if count > 1 or not name:
                self.say("node names must be unique and not empty", f"node {name!r}", f"{count} times")
        ranges_ready = True
        for index, node in enumerate(program.nodes):
            if len(self.problems) >= MAX_PROBLEMS:
                return self.problems
            ranges_ready &= self._node(node, index)
        self._ends()
        if ranges_ready:
            self._bounds()
            self._bits()
        return self.problems

    def _define(self, name: str, dtype: str, where: str) -> None:
        if not isinstance(name, str) or not name or "\0" in name or name == "__metadata__":
            self.say("not a usable name", where, repr(name))
        elif name in self.dtypes:
            self.say("the name is defined twice", where, name)
        else:
            self.dtypes[name] = dtype

    def _port(self, port: Port, where: str) -> None:
        if port.dtype not in DTYPES or port.dtype == "bf16":
            self.say("unknown dtype of a port", where, port.dtype, "f32, u8, s8, i32, i64, bool")
        if len(port.shape) > 8:
            self.say("rank is above 8", where, len(port.shape))
        for dim in port.shape:
            if not (isinstance(dim, str) and dim) and not (isinstance(dim, (int, np.integer)) and dim >= 0):
                self.say("a dimension is neither a size nor a name", where, repr(dim))

    def _constant(self, name: str) -> None:
        where, array = f"constant {name!r}", self.program.constants[name]
        dtype = constant_dtype(self.program, name)
        if not dtype:
            self.say("unknown dtype of a constant", where, array.dtype, ", ".join(DTYPES))
        if array.ndim > 8:
            self.say("rank is above 8", where, array.ndim)
        if dtype == "bool" and array.size and array.view(np.uint8).max() > 1:
            self.say("a bool is stored as a byte other than 0 and 1", where)
        self._define(name, dtype, where)
        self.known.add(name)

    def _node(self, node: Node, index: int) -> bool:
        """Check one node; True when nothing is wrong with it, so that its bound can be computed."""
        where = f"node {index} {node.op} {node.name!r}"
        operator = OPERATORS.get(node.op)
        if operator is None:
            self.say("unknown operator", where, node.op, near(node.op, OPERATORS))
            for name in node.outputs:
                self._define(name, "", where)
            return False
        before = len(self.problems)
        kinds = self._inputs(node, operator.inputs, where)
        self._attributes(node, operator.attrs, where)
        least = sum(1 for name in operator.outputs if name[-1] not in "?*") or 1
        most = len(operator.outputs) if operator.outputs[0][-1] != "*" else 2**16
        if not least <= len(node.outputs) <= most:
            self.say("wrong number of outputs", where, len(node.outputs), f"{least} to {most}")
        sound = len(self.problems) == before
        if sound:
            view = NodeView(node, attributes(node), kinds, self.program.constants)
            for what, got, allowed in CHECKS.get(node.op, lambda _: [])(view):
                self.say(what, where, got, allowed)
        outputs = output_dtypes(node, kinds) if sound else [""] * len(node.outputs)
        for name, dtype in zip(node.outputs, outputs, strict=True):
            self._define(name, dtype, where)
        if node.op == "shape" or all(name in self.known for name in node.inputs if name):
            self.known.update(node.outputs)
        return len(self.problems) == before

    def _inputs(self, node: Node, wanted: tuple[Input, ...], where: str) -> list[str]:
        """Check the inputs and return their dtypes ("" for an absent one)."""
        if wanted and wanted[-1].many:
            wanted = wanted[:-1] + (wanted[-1],) * max(1, len(node.inputs) - len(wanted) + 1)
        if len(node.inputs) != len(wanted):
            allowed = f"{len(wanted)}: " + ", ".join(item.name for item in wanted) + ' ("" for an absent one)'
            self.say("wrong number of inputs", where, len(node.inputs), allowed)
            return []
        kinds: dict[str, str] = {}
        result = []
        for name, item in zip(node.inputs, wanted, strict=True):
            place = f"{where}, input {item.name}"
            dtype = ""
            if not name:
                if not item.optional:
                    self.say("a required input is absent", place)
            elif name not in self.dtypes:
                self.say("the name is not an input, a constant or an earlier output", place, name)
            else:
                dtype = self._input(name, item, kinds, place)
            kinds.setdefault(item.name, dtype)
            result.append(dtype)
        return result

    def _input(self, name: str, item: Input, kinds: dict[str, str], place: str) -> str:
        self.used.add(name)
        dtype = self.dtypes[name]
        allowed = item.dtypes
        if allowed[0].startswith("="):
            allowed = (kinds.get(allowed[0][1:], ""),)
        elif item.many and item.name in kinds:
            allowed = (kinds[item.name],)
        if dtype and allowed != ("",) and dtype not in allowed:
            self.say("wrong dtype", place, f"{name} is {dtype}", ", ".join(allowed))
        if item.constant and name not in self.program.constants:
            self.say("must be a constant of the file", place, name)
        if item.known and name not in self.known:
            self.say("must be a constant or computed from shapes alone", place, name)
        return dtype

    def _attributes(self, node: Node, table: dict[str, Attr], where: str) -> None:
        for key, value in node.attrs.items():
            if key not in table:
                self.say("unknown attribute", where, key, near(key, table) if table else "none")
            else:
                problem = attr_problem(value, table[key])
                if problem:
                    self.say(f"attribute {key} {problem}", where, value, table[key].text())
        for key, attr in table.items():
            if attr.default is REQUIRED and key not in node.attrs:
                self.say("attribute is missing", where, key, attr.text())

    def _ends(self) -> None:
        program = self.program
        made = {name for node in program.nodes for name in node.outputs}
        if not program.outputs:
            self.say("the program has no output", "outputs")
        for name, count in Counter(port.name for port in program.outputs).items():
            if count > 1:
                self.say("an output is listed twice", f"output {name!r}")
        for port in program.outputs:
            where = f"output {port.name!r}"
            self._port(port, where)
            if port.name not in made:
                self.say("an output must be the output of a node", where)
            elif self.dtypes.get(port.name) and self.dtypes[port.name] != port.dtype:
                self.say("wrong dtype of an output", where, port.dtype, self.dtypes[port.name])
        for name, value in program.values.items():
            where = f"value {name!r}"
            if name not in made:
                self.say("a value that no node makes", where)
            elif self.dtypes.get(name) and value.dtype != self.dtypes[name]:
                self.say("wrong dtype of a value", where, value.dtype, self.dtypes[name])
            if value.scale is not None and not (math.isfinite(value.scale) and value.scale > 0):
                self.say("the scale of a value is not a positive number", where, value.scale)
        for name in sorted(set(program.constants) - self.used):
            self.say("no node uses this constant", f"constant {name!r}")

    def _bounds(self) -> None:
        """Prove again that the accumulator of every integer layer fits what the layer states."""
        from netsuke.formats.bound import ACC_LIMIT, accumulator_bound

        ranges = code_ranges(self.program)
        for index, node in enumerate(self.program.nodes):
            if "acc_bound" not in node.attrs or len(self.problems) >= MAX_PROBLEMS:
                continue
            where = f"node {index} {node.op} {node.name!r}"
            constants = self.program.constants
            position = [item.name for item in OPERATORS[node.op].inputs].index("acc_bias")
            bias = constants.get(node.inputs[position])
            lo, hi = ranges.get(node.inputs[0], (0, 255))
            stated: Any = node.attrs["acc_bound"]
            found = accumulator_bound(constants[node.inputs[1]], int(node.attrs["x_zero"]), lo, hi, bias)  # type: ignore[arg-type]
            worst = int(found.max(initial=0))
            if worst > ACC_LIMIT:
                self.say(
                    "an accumulator can leave int32", where, f"channel {int(found.argmax())}: {worst}", f"{ACC_LIMIT}"
                )
            elif worst > stated:
                self.say("acc_bound is smaller than what the layer can reach", where, stated, f"at least {worst}")

    def _bits(self) -> None:
        """A one-bit layer reads packed signs of as many channels as it states: their spare bits are 0."""
        known = bit_channels(self.program)
        for index, node in enumerate(self.program.nodes):
            if node.op not in ("bconv", "blinear", "bmatmul"):
                continue
            readers = [("x", node.inputs[0])]
            if node.op == "bmatmul":
                readers = [("a", node.inputs[0])] + [("b", n) for n in node.inputs[1:] if self.dtypes.get(n) == "i64"]
            for word, name in readers:
                found = known.get(name)
                if found != node.attrs["channels"]:
                    got = "no packed signs" if found is None else f"signs of {found} channels"
                    where = f"node {index} {node.op} {node.name!r}, input {word}"
                    allowed = f"{node.attrs['channels']} channels"
                    self.say(f"{word} must be packed signs", where, f"{name}: {got}", allowed)


def attr_problem(value: Any, attr: Attr) -> str:
    """What is wrong with the value of an attribute, or ""."""
    if attr.kind == "str":
        if not isinstance(value, str):
            return "is not a text"
        return "" if not attr.choices or value in attr.choices else "is not one of the words allowed"
    if attr.kind in ("ints", "floats"):
        if not isinstance(value, (list, tuple)):
            return "is not a list"
        if attr.length is not None and len(value) != attr.length:
            return f"does not have {attr.length} elements"
        return next((p for p in (_number_problem(v, attr) for v in value) if p), "")
    return _number_problem(value, attr)


def _number_problem(value: Any, attr: Attr) -> str:
    if isinstance(value, (bool, np.bool_)):
        return "is a bool, not a number"
    if attr.kind.startswith("int"):
        if not isinstance(value, (int, np.integer)):
            return "is not an integer"
    elif not isinstance(value, (int, float, np.integer, np.floating)) or not abs(float(value)) <= 3.4028235e38:
        return "is not a finite f32 number"
    if attr.positive and not np.float32(value) > 0:
        return "is not positive"
    if (attr.low is not None and value < attr.low) or (attr.high is not None and value > attr.high):
        return "is out of range"
    return ""
