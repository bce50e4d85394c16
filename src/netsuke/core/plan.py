"""`Plan`: what is done to each layer, as one table that can be read, edited, saved, replayed and compared.

    plan["layer4.*"].bits = 8          every row whose name matches; UsageError with near names when none does
    plan["head"].method = "keep"       leave in float
    plan.save("plan.toml"); Plan.load("plan.toml"); print(plan)

Fields that do not apply or were not measured are None and are left out of the TOML text.
"""

from __future__ import annotations

import dataclasses
import fnmatch
import math
import tomllib
from collections.abc import Callable, Collection, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, get_args, get_type_hints

import tomli_w

from netsuke.core.errors import FileError, Problem, UsageError, near

VERSION = 1
KEEP = "keep"
STATUSES = ("packed", "simulated", "float")
GRANULARITIES = ("channel", "tensor", "")
WEIGHT_RULES = ("maxabs", "mse", "")
REQUANT = ("float", "dyadic")
BFLOAT16 = 16  # bits of a layer that stays float and computes on bfloat16
WEIGHT_BITS = (2, 3, 4, 5, 6, 7, 8, BFLOAT16, 32)
ACTIVATION_BITS = (2, 3, 4, 5, 6, 7, 8, BFLOAT16, 32)


@dataclass
class Row:
    """One layer.

    name, op          layer name in the network; ONNX operator
    weight_bits       bits of the weights' codes; 32 is float, 16 bfloat16 (both for kept layers), None: none
    activation_bits   bits of the activations the layer reads; 32 is float, 16 bfloat16 (kept products of two
                      activations). A tensor that several layers read has one width: layers with arithmetic decide, the
                      others follow
    method            calibrator of the layer's inputs, "quantize/minmax[:options]", or "keep" (float)
    weights           rule for the weight scale: "maxabs" (docs/numerics.md section 7) or "mse"
    granularity       of the weight scales: "channel" or "tensor"
    kernel            program operator that runs it
    status            "packed" (stored and executed at its bits), "simulated" (computed as if), "float"
    macs              multiply-accumulates per sample
    bytes_before/after  stored bytes of the weights and biases
    expected_ms       predicted time of one run, milliseconds
    sqnr_db           signal to quantization noise of the layer's output when only this layer is quantized
    output_change     relative L2 change of the network's output when only this layer is quantized
    reason            why the row is as it is
    """

    name: str
    op: str
    weight_bits: int | None = None
    activation_bits: int = 32
    method: str = KEEP
    weights: str = ""
    granularity: str = ""
    kernel: str = ""
    status: str = "float"
    macs: int | None = None
    bytes_before: int = 0
    bytes_after: int = 0
    expected_ms: float | None = None
    sqnr_db: float | None = None
    output_change: float | None = None
    reason: str = ""

    @property
    def kept(self) -> bool:
        """True when the layer stays in float."""
        return self.method == KEEP

    @property
    def bfloat16(self) -> bool:
        """Whether the layer stays float and computes on bfloat16."""
        return self.kept and BFLOAT16 in (self.weight_bits, self.activation_bits)

    @property
    def bits(self) -> int:
        """Bits of the activations; setting it sets the weights' bits too where the layer has weights."""
        return self.activation_bits

    @bits.setter
    def bits(self, value: int) -> None:
        self.activation_bits = value
        if self.weight_bits is not None:
            self.weight_bits = value


_FIELDS = {f.name for f in dataclasses.fields(Row)}
_SETTABLE = (_FIELDS | {"bits"}) - {"name", "op"}
_REQUIRED = ("name", "op")


class Selection:
    """The rows one pattern matched; setting an attribute sets it on every row."""

    def __init__(self, rows: list[Row], pattern: str) -> None:
        object.__setattr__(self, "rows", rows)
        object.__setattr__(self, "pattern", pattern)

    def __setattr__(self, name: str, value: object) -> None:
        rows: list[Row] = object.__getattribute__(self, "rows")
        if name not in _SETTABLE:
            raise UsageError(Problem("a plan has no such field", got=name, allowed=near(name, _SETTABLE)))
        for row in rows:
            setattr(row, name, value)

    def __getattr__(self, name: str) -> Any:
        if name.startswith("_"):
            raise AttributeError(name)
        if name not in _FIELDS | {"bits", "kept"}:
            raise UsageError(Problem("a plan has no such field", got=name, allowed=near(name, _FIELDS | {"bits"})))
        values = [getattr(row, name) for row in self.rows]
        return values[0] if len(values) == 1 else values

    def __len__(self) -> int:
        return len(self.rows)

    def __iter__(self) -> Iterator[Row]:
        return iter(self.rows)


@dataclass
class Plan:
    """Rows per layer, and what holds for the whole network.

    recipe     name of the recipe it came from
    steps      the recipe's steps, "room/method:options"
    requant    "float" or "dyadic" (docs/numerics.md sections 4 and 5)
    data       facts about the calibration data: source, sha256, count; or source = "data-free (...)"
    budget     the contract, as text by key
    curve      the trade-off a bit search found, cheapest point first: budget, cost, sensitivity and bits in words
    notes      lines a reader must see: choices made and limits found while planning
    """

    rows: list[Row] = field(default_factory=list)
    network: str = ""
    recipe: str = ""
    steps: list[str] = field(default_factory=list)
    requant: str = "float"
    seed: int = 0
    data: dict[str, Any] = field(default_factory=dict)
    budget: dict[str, Any] = field(default_factory=dict)
    curve: list[dict[str, Any]] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)

    def __getitem__(self, pattern: str) -> Selection:
        """The rows whose name matches the glob; UsageError with near names when nothing matches."""
        rows = [row for row in self.rows if row.name == pattern]
        rows = rows or [row for row in self.rows if fnmatch.fnmatchcase(row.name, pattern)]
        if not rows:
            raise UsageError(
                Problem("no layer matches", got=pattern, allowed=near(pattern, (r.name for r in self.rows)))
            )
        return Selection(rows, pattern)

    def __len__(self) -> int:
        return len(self.rows)

    def __iter__(self) -> Iterator[Row]:
        return iter(self.rows)

    def note(self, text: str) -> None:
        """Add a note unless it stands there already."""
        if text not in self.notes:
            self.notes.append(text)

    def counts(self) -> dict[str, int]:
        """Number of layers by status."""
        return {status: sum(row.status == status for row in self.rows) for status in STATUSES}

    def bytes(self) -> tuple[int, int]:
        """Stored bytes of weights and biases before and after."""
        return sum(row.bytes_before for row in self.rows), sum(row.bytes_after for row in self.rows)

    def to_toml(self, *, measured: bool = True) -> str:
        """The plan as TOML text: same plan, same text. measured=False leaves out times and the curve, which differ
        between machines: so a compressed file is the same everywhere."""
        hidden = {"rows"} if measured else {"rows", "curve"}
        head = {f.name: getattr(self, f.name) for f in dataclasses.fields(self) if f.name not in hidden}
        table = {"version": VERSION, **{key: _plain(value) for key, value in head.items()}}
        rows = [
            dataclasses.asdict(row if measured else dataclasses.replace(row, expected_ms=None)) for row in self.rows
        ]
        table["layer"] = [{k: v for k, v in row.items() if v is not None} for row in rows]
        return tomli_w.dumps(table)

    @classmethod
    def from_toml(cls, text: str, where: str = "plan") -> Plan:
        """Read TOML text; UsageError lists every unknown key, missing key and wrong type."""
        try:
            table = tomllib.loads(text)
        except tomllib.TOMLDecodeError as error:
            raise UsageError(Problem("the plan is not TOML", where=where, got=str(error))) from error
        problems: list[Problem] = []
        if table.pop("version", None) != VERSION:
            problems.append(Problem("version", where=where, got="missing or other", allowed=f"version = {VERSION}"))
        layers = table.pop("layer", [])
        head = _typed(cls, table, where, problems, skip={"rows"})
        rows = []
        for index, layer in enumerate(layers if isinstance(layers, list) else [layers]):
            at = f"layer {index + 1}" + (f" ({layer['name']})" if isinstance(layer, dict) and "name" in layer else "")
            if not isinstance(layer, dict):
                problems.append(Problem("a layer must be a table", where=at, got=type(layer).__name__))
                continue
            problems += [Problem("a key is missing", where=at, got=key) for key in _REQUIRED if key not in layer]
            values = _typed(Row, layer, at, problems)
            if all(key in values for key in _REQUIRED):
                rows.append(Row(**values))
        for index, point in enumerate(head.get("curve", [])):
            numbers = [point.get("cost"), point.get("harm")] if isinstance(point, dict) else [None]
            if not all(isinstance(v, int | float) for v in numbers):
                what = "a point of the curve is a table with numbers cost and harm"
                problems.append(Problem(what, where=f"curve {index + 1}", got=repr(point)))
        if problems:
            raise UsageError(problems, "the plan cannot be read")
        return cls(rows=rows, **head)

    def save(self, path: str | Path) -> None:
        """Write the plan as a TOML file."""
        Path(path).write_text(self.to_toml(), encoding="utf-8")

    @classmethod
    def load(cls, path: str | Path) -> Plan:
        """Read a plan file."""
        try:
            text = Path(path).read_text(encoding="utf-8")
        except (OSError, UnicodeDecodeError) as error:
            raise FileError(Problem("the plan cannot be read", where=str(path), got=str(error))) from error
        return cls.from_toml(text, str(path))

    def validate(
        self, layers: Collection[str] | None = None, check_method: Callable[[str], object] | None = None
    ) -> None:
        """UsageError listing all problems at once.

        layers        names the network has; a row of another name is a problem, and so is a layer without a row
        check_method  raises UsageError for a method name or option that does not exist
        """
        problems = list(_row_problems(self.rows, check_method))
        if self.requant not in REQUANT:
            problems.append(Problem("requant", got=self.requant, allowed=", ".join(REQUANT)))
        names = [row.name for row in self.rows]
        problems += [Problem("a layer has two rows", where=n) for n in sorted({n for n in names if names.count(n) > 1})]
        if layers is not None:
            strangers = (n for n in names if n not in layers)
            problems += [Problem("no such layer in the network", where=n, allowed=near(n, layers)) for n in strangers]
            problems += [Problem("the plan has no row for this layer", where=n) for n in layers if n not in set(names)]
        if problems:
            raise UsageError(
                problems, f"{len(problems)} problem{'s' * (len(problems) > 1)} in the plan, nothing was run"
            )

    def table(self) -> str:
        """The plan as an aligned text table, one row per layer, then the notes."""
        return _text_table(self)

    __str__ = table


def _typed(
    cls: type, table: Mapping[str, Any], where: str, problems: list[Problem], skip: Collection[str] = ()
) -> dict[str, Any]:
    hints = {name: hint for name, hint in get_type_hints(cls).items() if name not in skip}
    values: dict[str, Any] = {}
    for key, value in table.items():
        if key not in hints:
            problems.append(Problem("unknown key", where=where, got=key, allowed=near(key, hints)))
            continue
        kinds = tuple(getattr(k, "__origin__", None) or k for k in (get_args(hints[key]) or (hints[key],)))
        kinds = (hints[key].__origin__,) if hasattr(hints[key], "__origin__") else kinds
        if float in kinds and isinstance(value, int) and not isinstance(value, bool):
            value = float(value)
        if isinstance(value, bool) or not isinstance(value, kinds):
            wanted = " or ".join(k.__name__ for k in kinds if k is not type(None))
            problems.append(Problem("wrong type", where=f"{where} {key}", got=repr(value), allowed=wanted))
        else:
            values[key] = value
    return values


def _row_problems(rows: list[Row], check_method: Callable[[str], object] | None) -> Iterator[Problem]:
    for row in rows:
        allowed: tuple[tuple[str, object, tuple[Any, ...]], ...] = (
            ("weight_bits", row.weight_bits, (*WEIGHT_BITS, None)),
            ("activation_bits", row.activation_bits, ACTIVATION_BITS),
            ("granularity", row.granularity, GRANULARITIES),
            ("weights", row.weights, WEIGHT_RULES),
            ("status", row.status, STATUSES),
        )
        for key, value, values in allowed:
            if value not in values:
                yield Problem(key, row.name, str(value), ", ".join(str(v) for v in values if v not in ("", None)))
        if not row.kept and row.activation_bits in (BFLOAT16, 32):
            what = f"{row.activation_bits} bits means float"
            yield Problem(what, row.name, row.method, "method = keep, or bits = 8")
        elif not row.kept and row.weight_bits in (BFLOAT16, 32):
            got = f"weight_bits = {row.weight_bits}"
            yield Problem("float weights on codes have no kernel", row.name, got, "2..8, or method = keep")
        if check_method is not None and not row.kept:
            try:
                check_method(row.method)
            except UsageError as error:
                for p in error.problems:
                    yield dataclasses.replace(p, where=row.name)


def _plain(value: Any) -> Any:
    if isinstance(value, dict):
        return {k: _plain(v) for k, v in value.items() if v is not None}
    return value


def _text_table(plan: Plan) -> str:
    header = ("layer", "op", "bits", "method", "kernel", "status", "macs", "bytes", "ms", "sqnr", "change", "reason")
    lines = [header, *map(_cells, plan.rows)]
    widths = [max(len(line[i]) for line in lines) for i in range(len(header))]
    right = {"bits", "macs", "bytes", "ms", "sqnr", "change"}
    text = []
    for line in lines:
        cells = (c.rjust(w) if h in right else c.ljust(w) for c, w, h in zip(line, widths, header, strict=True))
        text.append("  ".join(cells).rstrip())
    before, after = plan.bytes()
    counts = ", ".join(f"{n} {status}" for status, n in plan.counts().items())
    text.append(f"{len(plan)} layers: {counts}; weights {before:,} -> {after:,} bytes; requantization {plan.requant}")
    text += _curve_lines(plan.curve)
    return "\n".join([*text, *(f"note: {note}" for note in plan.notes)])


def _curve_lines(curve: list[dict[str, Any]]) -> list[str]:
    """The trade-off curve as aligned lines, cheapest first."""
    lines = []
    for point in curve:
        name, cost, harm = point.get("name", ""), point.get("cost", 0.0), point.get("harm", 0.0)
        lines.append(f"  {name:8} {cost:>16,.6g} {harm:>12.4g}  {point.get('formats', '')}".rstrip())
    head = [f"trade-off: {curve[0].get('kind', 'cost')}, harm, formats of the searched layers"] if curve else []
    return head + lines


def _cells(row: Row) -> tuple[str, ...]:
    weight = "-" if row.weight_bits is None else f"w{row.weight_bits}"
    bits = ("bf16" if row.bfloat16 else "float") if row.kept else f"{weight}a{row.activation_bits}".lstrip("-")
    size = f"{row.bytes_before:,}>{row.bytes_after:,}" if row.bytes_before else "-"
    ms = "-" if row.expected_ms is None else f"{row.expected_ms:.3f}"
    sqnr = "-" if row.sqnr_db is None else "inf" if math.isinf(row.sqnr_db) else f"{row.sqnr_db:.1f}"
    change = "-" if row.output_change is None else f"{row.output_change:.4f}"
    macs = "-" if row.macs is None else f"{row.macs:,}"
    return (row.name, row.op, bits, row.method, row.kernel, row.status, macs, size, ms, sqnr, change, row.reason)
