"""Program <-> JSON text of docs/format.md section 1. Strict: unknown keys, wrong types and deep nesting are refused."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from netsuke.core.errors import FileError, Problem
from netsuke.formats import STORED_BITS
from netsuke.formats.codebook import MAX_ENTRIES, MAX_LENGTH
from netsuke.formats.packing_forms import FORM_BITS, FORMS
from netsuke.program.model import AttrValue, Node, Port, Program, Value

FORMAT, VERSION = "netsuke-program", 1
MAX_DEPTH, MAX_NODES, MAX_RANK, MAX_NAME = 32, 1_000_000, 8, 1024
INT64 = range(-(2**63), 2**63)


@dataclass(frozen=True)
class Packed:
    """How a constant stands in the file when it is packed: what its bytes stand for.

    dtype    s8 or u8 of codes; f32 too where there are entries
    bits     of a code, or of an index into the entries
    entries  (k, length): k vectors of `length` consecutive elements stand before the indices; None for plain codes
    form     "ternary" or "salient" (netsuke.formats.packing_forms): the file says this instead of bits
    """

    dtype: str
    shape: tuple[int, ...]
    bits: int
    entries: tuple[int, int] | None = None
    form: str = ""

    def as_json(self) -> dict[str, Any]:
        kind: dict[str, Any] = {"form": self.form} if self.form else {"bits": self.bits}
        found = {**kind, "dtype": self.dtype, "shape": list(self.shape)}
        return found if self.entries is None else found | {"entries": list(self.entries)}


def shortest(value: float) -> float:
    """The double with the fewest digits that rounds to the same f32, so that 0.05 is written as 0.05.

    Attributes are f32: `f32(shortest(v)) == f32(v)` always holds.
    """
    with np.errstate(over="ignore"):
        exact = np.float32(value)
    short = float(str(exact))
    return short if np.float32(short) == exact else float(exact)


def _plain_attr(value: AttrValue) -> Any:
    if isinstance(value, (list, tuple)):
        return [_plain_attr(v) for v in value]
    if isinstance(value, (float, np.floating)):
        return shortest(float(value))
    if isinstance(value, (bool, np.bool_)):
        raise FileError(Problem("an attribute is a bool; flags are written as 0 or 1"))
    return int(value) if isinstance(value, (int, np.integer)) else str(value)


def _plain_value(value: Value) -> dict[str, Any]:
    entry: dict[str, Any] = {"dtype": value.dtype}
    if value.scale is not None:
        entry["scale"] = shortest(float(value.scale))
    if value.zero is not None:
        entry["zero"] = int(value.zero)
    if value.source:
        entry["source"] = value.source
    return entry


def program_text(program: Program, producer: str, packed: Mapping[str, Packed]) -> str:
    """The JSON text of a program without its constants: keys sorted, no spaces, shortest floats."""
    document: dict[str, Any] = {
        "format": FORMAT,
        "version": VERSION,
        "producer": producer,
        "name": program.name,
        "inputs": [{"name": p.name, "dtype": p.dtype, "shape": list(p.shape)} for p in program.inputs],
        "outputs": [{"name": p.name, "dtype": p.dtype, "shape": list(p.shape)} for p in program.outputs],
        "nodes": [
            {
                "op": n.op,
                "name": n.name,
                "in": list(n.inputs),
                "out": list(n.outputs),
                "attrs": {key: _plain_attr(value) for key, value in n.attrs.items()},
            }
            for n in program.nodes
        ],
        "values": {name: _plain_value(value) for name, value in program.values.items()},
        "plan": program.plan,
        "meta": {str(key): str(value) for key, value in program.meta.items()},
    }
    if packed:
        document["packed"] = {name: form.as_json() for name, form in packed.items()}
    try:
        return json.dumps(document, sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False)
    except ValueError as error:
        raise FileError(Problem("an attribute or scale is NaN or infinite", got=str(error))) from error


def _refuse_constant(text: str) -> float:
    raise ValueError(f"{text} is not a JSON number")


def _finite(text: str) -> float:
    value = float(text)
    if not math.isfinite(value):
        raise ValueError(f"{text} is out of range")
    return value


def _int64(text: str) -> int:
    if len(text) > 20 or int(text) not in INT64:
        raise ValueError(f"integer {text[:24]} is out of range")
    return int(text)


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    keys = dict(pairs)
    if len(keys) != len(pairs):
        names = [key for key, _ in pairs]
        raise ValueError(f"key {next(k for k in names if names.count(k) > 1)!r} occurs twice")
    return keys


_STRINGS = re.compile(r'"(?:[^"\\]|\\.)*"', re.DOTALL)


def _depth(text: str) -> int:
    """Deepest nesting of brackets outside strings, without recursion."""
    depth = deepest = 0
    for bracket in re.findall(r"[\[\]{}]", _STRINGS.sub("", text)):
        if bracket in "[{":
            depth += 1
            deepest = max(deepest, depth)
        else:
            depth -= 1
    return deepest


def parse_json(text: str, where: str, max_depth: int = MAX_DEPTH) -> Any:
    """JSON with the limits of docs/format.md; FileError on anything else than plain finite JSON."""
    try:
        return json.loads(
            text,
            parse_constant=_refuse_constant,
            parse_float=_finite,
            parse_int=_int64,
            object_pairs_hook=_unique,
        )
    except RecursionError:
        problem = Problem("JSON is nested too deep", where=where, allowed=f"{max_depth} levels")
    except ValueError as error:
        problem = Problem("not valid JSON", where=where, got=str(error)[:200])
    raise FileError(problem)


class _Reader:
    """Typed access to a JSON object that collects problems instead of stopping at the first one."""

    def __init__(self) -> None:
        self.problems: list[Problem] = []

    def say(self, what: str, where: str, got: object = "") -> None:
        if len(self.problems) < 50:
            self.problems.append(Problem(what, where=where, got=str(got)[:120]))

    def keys(self, item: Any, where: str, required: tuple[str, ...], optional: tuple[str, ...] = ()) -> bool:
        if not isinstance(item, dict):
            self.say("expected a JSON object", where, type(item).__name__)
            return False
        for key in required:
            if key not in item:
                self.say(f"key {key!r} is missing", where)
        for key in item:
            if key not in required and key not in optional:
                self.say("unknown key", where, key)
        return all(key in item for key in required)

    def text(self, value: Any, where: str, limit: int | None = MAX_NAME) -> str:
        if not isinstance(value, str) or (limit is not None and len(value) > limit) or "\0" in value:
            self.say(
                "expected a text" + (f" of at most {limit} characters" if limit else ""), where, type(value).__name__
            )
            return ""
        return value

    def names(self, value: Any, where: str) -> list[str]:
        if not isinstance(value, list):
            self.say("expected a list of names", where, type(value).__name__)
            return []
        return [self.text(v, where) for v in value]

    def port(self, item: Any, where: str) -> Port | None:
        if not self.keys(item, where, ("name", "dtype", "shape")):
            return None
        shape = item["shape"]
        if not isinstance(shape, list) or len(shape) > MAX_RANK or not all(_is_dim(d) for d in shape):
            self.say(f"expected a shape of at most {MAX_RANK} sizes or dimension names", where, shape)
            return None
        return Port(self.text(item["name"], where), self.text(item["dtype"], where), tuple(shape))

    def node(self, item: Any, where: str) -> Node | None:
        if not self.keys(item, where, ("op", "name", "in", "out", "attrs")):
            return None
        attrs = item["attrs"]
        if not isinstance(attrs, dict) or not all(_is_attr(v) for v in attrs.values()):
            self.say("an attribute is neither a number, a text nor a list of numbers", where, attrs)
            return None
        plain = {key: _f32_attr(value) for key, value in attrs.items()}
        ins, outs = self.names(item["in"], where), self.names(item["out"], where)
        return Node(self.text(item["op"], where), self.text(item["name"], where), ins, outs, plain)

    def packed(self, item: Any, where: str) -> Packed | None:
        form = item.get("form") if isinstance(item, dict) else None
        needed, more = (("bits",), ("entries",)) if form is None else (("form",), ())
        if not self.keys(item, where, (*needed, "dtype", "shape"), more):
            return None
        bits, dtype, shape, entries = item.get("bits", 0), item["dtype"], item["shape"], item.get("entries")
        if form is not None:
            if form not in FORMS or dtype != "s8":
                self.say(f"expected a form of s8 codes: {', '.join(FORMS)}", where, f"{form} of {dtype}")
                return None
            bits = FORM_BITS[form]
        elif "entries" in item:
            if not _is_table(entries) or type(bits) is not int or dtype not in ("s8", "u8", "f32"):
                what = "expected entries [2 to 256, 1 to 64] of s8, u8 or f32 and whole bits"
                self.say(what, where, f"{entries}, {bits} bits of {dtype}")
                return None
        elif type(bits) is not int or bits not in STORED_BITS[:-1] or dtype not in ("s8", "u8"):
            self.say("expected 1, 2, 3, 4, 5 or 6 bits of s8 or u8", where, f"{bits} bits of {dtype}")
            return None
        sizes = isinstance(shape, list) and len(shape) <= MAX_RANK and all(_is_dim(d) for d in shape)
        if not sizes or any(isinstance(d, str) for d in shape) or math.prod(max(d, 1) for d in shape) >= 2**48:
            self.say(f"expected a shape of at most {MAX_RANK} sizes", where, shape)
            return None
        return Packed(dtype, tuple(shape), bits, tuple(entries) if entries else None, form or "")

    def value(self, item: Any, where: str) -> Value | None:
        if not self.keys(item, where, ("dtype",), ("scale", "zero", "source")):
            return None
        scale, zero = item.get("scale"), item.get("zero")
        if scale is not None and not (isinstance(scale, float) and 0 < scale < 3.5e38):
            self.say("scale is not a positive number", where, scale)
            return None
        if zero is not None and (isinstance(zero, bool) or not isinstance(zero, int)):
            self.say("zero is not an integer", where, zero)
            return None
        scale = None if scale is None else float(np.float32(scale))
        return Value(self.text(item["dtype"], where), scale, zero, self.text(item.get("source", ""), where, None))


def _is_table(value: Any) -> bool:
    """Numbers of entries and of elements in one."""
    if not isinstance(value, list) or len(value) != 2 or any(type(v) is not int for v in value):
        return False
    return bool(2 <= value[0] <= MAX_ENTRIES and 1 <= value[1] <= MAX_LENGTH)


def _is_dim(value: Any) -> bool:
    if isinstance(value, str):
        return 0 < len(value) <= MAX_NAME
    return isinstance(value, int) and not isinstance(value, bool) and 0 <= value < 2**40


def _is_attr(value: Any) -> bool:
    if isinstance(value, list):
        return len(value) <= 65536 and all(isinstance(v, (int, float)) and not isinstance(v, bool) for v in value)
    return isinstance(value, (int, float, str)) and not isinstance(value, bool)


def _f32_attr(value: Any) -> AttrValue:
    """Floats are f32: the value that every implementation will use."""
    if isinstance(value, float):
        with np.errstate(over="ignore"):
            return float(np.float32(value))
    if isinstance(value, list):
        return [_f32_attr(v) for v in value]  # type: ignore[return-value]
    return value  # type: ignore[no-any-return]


def program_from_text(text: str, where: str) -> tuple[Program, dict[str, Packed]]:
    """The program of a JSON text, constants empty, and its packed constants. FileError lists every problem found."""
    if _depth(text) > MAX_DEPTH:
        raise FileError(Problem("JSON is nested too deep", where=where, allowed=f"{MAX_DEPTH} levels"))
    document = parse_json(text, where)
    read = _Reader()
    top = ("format", "version", "producer", "name", "inputs", "outputs", "nodes", "values", "plan", "meta")
    complete = read.keys(document, where, top, ("packed",))
    if isinstance(document, dict):
        for key, wanted in (("format", FORMAT), ("version", VERSION)):
            if key in document and document[key] != wanted:
                raise FileError(
                    Problem(f"unknown {key}", where=where, got=str(document[key])[:80], allowed=str(wanted))
                )
    if not complete:
        raise FileError(read.problems, summary=f"{where} is not a netsuke program")
    document.setdefault("packed", {})
    lists = (("inputs", list), ("outputs", list), ("nodes", list), ("values", dict), ("meta", dict), ("packed", dict))
    for key, kind in lists:
        if not isinstance(document[key], kind):
            raise FileError(Problem(f"{key} is not a JSON {'list' if kind is list else 'object'}", where=where))
    if len(document["nodes"]) > MAX_NODES:
        raise FileError(Problem("too many nodes", where=where, allowed=str(MAX_NODES)))
    inputs = [read.port(p, f"inputs[{i}]") for i, p in enumerate(document["inputs"])]
    outputs = [read.port(p, f"outputs[{i}]") for i, p in enumerate(document["outputs"])]
    nodes = [read.node(n, f"nodes[{i}]") for i, n in enumerate(document["nodes"])]
    values = {key: read.value(item, f"values[{key!r}]") for key, item in document["values"].items()}
    packed = {key: read.packed(item, f"packed[{key!r}]") for key, item in document["packed"].items()}
    name, plan = read.text(document["name"], "name"), read.text(document["plan"], "plan", None)
    meta = {key: read.text(item, f"meta[{key!r}]", None) for key, item in document["meta"].items()}
    read.text(document["producer"], "producer")
    if read.problems:
        raise FileError(read.problems, summary=f"{where} is not a netsuke program")
    program = Program(
        name=name,
        inputs=[p for p in inputs if p],
        outputs=[p for p in outputs if p],
        nodes=[n for n in nodes if n],
        values={key: value for key, value in values.items() if value},
        plan=plan,
        meta=meta,
    )
    return program, {key: form for key, form in packed.items() if form}
