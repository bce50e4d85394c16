"""The result of a benchmark, as an object and as Markdown, CSV, JSON or JSON lines."""

from __future__ import annotations

import csv
import io
import json
from dataclasses import dataclass, field
from typing import Any

from netsuke.core.errors import Problem, UsageError, near
from netsuke.measure import table
from netsuke.measure.rows import SCHEMA, Row

FORMATS = ("md", "csv", "json", "jsonl")
_CSV = (
    *("engine", "precision", "threads", "batch", "status"),
    *("median_ms", "p10_ms", "p90_ms", "p99_ms", "min_ms", "spread", "runs", "rounds", "throughput"),
    *("ratio_to_best_float", "ratio_to_best_int8", "load_ms", "first_ms", "peak_bytes"),
    *("effective_threads", "busy_cores", "cosine", "version", "note", "reason"),
)


@dataclass
class Settings:
    """What was asked for; the rows say what happened."""

    threads: tuple[int, ...]
    batch: tuple[int, ...]
    engines: tuple[str, ...]
    precisions: tuple[str, ...]
    seconds: float
    memory: bool
    layers: bool
    seed: int


@dataclass
class Result:
    """Rows, what they were compared with, the machine, and whether to believe them. `str()` is the table."""

    rows: list[Row]
    baselines: list[dict[str, Any]]
    settings: Settings
    environment: dict[str, Any]
    verdict: dict[str, Any]
    notes: list[str] = field(default_factory=list)
    layers: list[dict[str, Any]] = field(default_factory=list)
    files: dict[str, Any] = field(default_factory=dict)

    def as_json(self) -> dict[str, Any]:
        """The versioned form, keys documented in docs/json.md."""
        return {
            "schema": SCHEMA,
            "rows": [r.as_json() for r in self.rows],
            "baselines": self.baselines,
            "settings": dict(self.settings.__dict__),
            "environment": self.environment,
            "verdict": self.verdict,
            "notes": self.notes,
            "layers": self.layers,
            "files": self.files,
        }

    def row(self, engine: str, precision: str, threads: int | None = None) -> Row:
        """The first row of that engine, precision and thread count; KeyError when there is none."""
        for row in self.rows:
            if (row.engine, row.precision) == (engine, precision) and threads in (None, row.threads):
                return row
        raise KeyError(f"{engine} {precision} {threads}")

    def __str__(self) -> str:
        return markdown(self)


def markdown(result: Result) -> str:
    """The whole result for the eye."""
    parts = [table.rows_markdown(result.rows)]
    if result.layers:
        parts.append("### Layers, netsuke int8\n\n" + table.layers_markdown(result.layers))
    parts.append(table.verdict_text(result.verdict))
    parts += [f"Note: {n}." for n in result.notes]
    parts += [table.DEFINITIONS, "Machine: " + table.environment_line(result.environment)]
    return "\n\n".join(parts)


def render(result: Result, form: str) -> str:
    """The result in one of FORMATS; UsageError for another."""
    if form == "md":
        return markdown(result)
    if form == "json":
        return json.dumps(result.as_json(), indent=1)
    if form == "jsonl":
        common = {
            "schema": result.as_json()["schema"],
            "environment": result.environment,
            "valid": result.verdict["valid"],
        }
        return "\n".join(json.dumps(r.as_json() | common) for r in result.rows)
    if form == "csv":
        stream = io.StringIO()
        writer = csv.DictWriter(stream, _CSV, extrasaction="ignore", lineterminator="\n")
        writer.writeheader()
        writer.writerows(r.as_json() for r in result.rows)
        return stream.getvalue().rstrip("\n")
    raise UsageError(Problem("unknown format", where="--format", got=form, allowed=near(form, FORMATS)))
