"""Compare two result files of `bench`: what became slower or faster, and is that within what the machine wobbles by."""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from netsuke.core.errors import FileError, Problem, UsageError
from netsuke.measure.rows import SCHEMA
from netsuke.measure.stats import Ratio, speed_ratio


@dataclass(frozen=True)
class Change:
    """One row found in both files. `speed` above 1: the new one is faster."""

    label: str
    threads: int
    batch: int
    old_ms: float
    new_ms: float
    speed: Ratio


@dataclass(frozen=True)
class Comparison:
    changes: list[Change]
    only_old: list[str]
    only_new: list[str]
    warnings: list[str]

    def slower(self, limit: float) -> list[Change]:
        """Rows of ours that became slower by more than `limit` (0.03 is 3%), beyond the interval."""
        ours = [c for c in self.changes if c.label.startswith("netsuke")]
        return [c for c in ours if c.new_ms > c.old_ms * (1 + limit) and c.speed.differs]

    def __str__(self) -> str:
        lines = [
            f"{c.label:24} {c.threads} threads batch {c.batch}   {c.old_ms:.3f} -> {c.new_ms:.3f} ms   {c.speed}"
            for c in self.changes
        ]
        lines += [f"only in the old file: {', '.join(self.only_old)}"] if self.only_old else []
        lines += [f"only in the new file: {', '.join(self.only_new)}"] if self.only_new else []
        return "\n".join(lines + [f"warning: {w}" for w in self.warnings])

    def as_json(self) -> dict[str, Any]:
        return {
            "schema": "netsuke.bench-compare/1",
            "changes": [
                {
                    "label": c.label, "threads": c.threads, "batch": c.batch, "old_ms": c.old_ms, "new_ms": c.new_ms,
                    "speed": c.speed.value, "interval": [c.speed.low, c.speed.high], "differs": c.speed.differs,
                }
                for c in self.changes
            ],
            "only_old": self.only_old,
            "only_new": self.only_new,
            "warnings": self.warnings,
        }  # fmt: skip


def read(path: Path) -> dict[str, Any]:
    """A result file; FileError when it is missing, unreadable or of another kind."""
    try:
        content: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise FileError(Problem("cannot read", where=str(path), got=str(error.strerror))) from None
    except ValueError as error:
        raise FileError(Problem("not JSON", where=str(path), got=str(error))) from None
    if not isinstance(content, dict) or content.get("schema") != SCHEMA:
        got = str(content.get("schema")) if isinstance(content, dict) else type(content).__name__
        raise FileError(Problem("not a result of netsuke bench", where=str(path), got=got, allowed=SCHEMA))
    return content


def parse_limit(text: str) -> float:
    """ "slower:3%" as 0.03; UsageError otherwise."""
    match = re.fullmatch(r"slower:(\d+(?:\.\d+)?)%", text.strip())
    if not match:
        raise UsageError(Problem("not a limit", where="--fail-if", got=text, allowed='"slower:3%"'))
    return float(match[1]) / 100


def _conditions(old: dict[str, Any], new: dict[str, Any]) -> list[str]:
    a, b = old["environment"], new["environment"]
    warnings = []
    for label, x, y in (
        ("CPU", a["cpu"]["name"], b["cpu"]["name"]),
        ("usable cores", a["cpu"]["cores"], b["cpu"]["cores"]),
        ("forced ISA", a["forced_isa"], b["forced_isa"]),
        ("governor", a["governor"], b["governor"]),
    ):
        if x != y:
            warnings.append(f"{label} differs: {x!r} and {y!r}")
    warnings += [f"the {name} run was noisy" for name, r in (("old", old), ("new", new)) if not r["verdict"]["valid"]]
    return warnings


def compare(old: dict[str, Any], new: dict[str, Any]) -> Comparison:
    """Match rows by engine, precision, threads and batch."""

    def index(result: dict[str, Any]) -> dict[tuple[str, str, int, int], dict[str, Any]]:
        rows = (r for r in result["rows"] if r["status"] == "ok")
        return {(r["engine"], r["precision"], r["threads"], r["batch"]): r for r in rows}

    a, b = index(old), index(new)
    changes = [
        Change(
            f"{k[0]} {k[1]}",
            k[2],
            k[3],
            a[k]["median_ms"],
            b[k]["median_ms"],
            speed_ratio(a[k]["rounds_ms"], b[k]["rounds_ms"]),
        )
        for k in a
        if k in b
    ]

    def names(keys: set[tuple[str, str, int, int]]) -> list[str]:
        return sorted(f"{k[0]} {k[1]} {k[2]} threads batch {k[3]}" for k in keys)

    return Comparison(changes, names(a.keys() - b.keys()), names(b.keys() - a.keys()), _conditions(old, new))
