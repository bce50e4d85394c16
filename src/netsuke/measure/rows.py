"""The rows of a benchmark and the ratios between them."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from typing import Any

from netsuke.measure.stats import Ratio, Summary, speed_ratio

SCHEMA = "netsuke.bench/1"


@dataclass
class Row:
    """One engine at one precision, thread count and batch. Times are milliseconds, memory bytes; None is "not
    measured".

    status is "ok", "missing" (not installed) or "failed"; `reason` says why. `rounds_ms` holds every timing.
    load_ms, first_ms and peak_bytes come from a process of its own: load of the file, first call, and the growth of
    resident memory from before the load to its peak.
    """

    engine: str
    precision: str
    threads: int
    batch: int
    status: str = "ok"
    reason: str = ""
    version: str = ""
    note: str = ""
    install: str = ""
    effective_threads: int | None = None
    busy_cores: float | None = None
    summary: Summary | None = None
    load_ms: float | None = None
    first_ms: float | None = None
    peak_bytes: int | None = None
    memory_note: str = ""
    cosine: float | None = None
    to_best_float: Ratio | None = None
    to_best_int8: Ratio | None = None
    rounds_ms: list[list[float]] = field(default_factory=list)

    @property
    def label(self) -> str:
        return f"{self.engine} {self.precision}"

    @property
    def ours(self) -> bool:
        return self.engine.startswith("netsuke")

    def as_json(self) -> dict[str, Any]:
        """Flat keys, documented in docs/json.md."""
        row: dict[str, Any] = {
            key: getattr(self, key)
            for key in (
                "engine",
                "precision",
                "threads",
                "batch",
                "status",
                "reason",
                "version",
                "note",
                "effective_threads",
            )
        }
        summary = asdict(self.summary) if self.summary else dict.fromkeys(Summary.__dataclass_fields__)
        row.update(summary)
        median = self.summary.median_ms if self.summary else None
        row["throughput"] = None if median is None else 1000.0 * self.batch / median
        for key in ("busy_cores", "load_ms", "first_ms", "peak_bytes", "memory_note", "cosine"):
            row[key] = getattr(self, key)
        for key, ratio in (("ratio_to_best_float", self.to_best_float), ("ratio_to_best_int8", self.to_best_int8)):
            row[key] = ratio.value if ratio else None
            row[f"{key}_interval"] = [ratio.low, ratio.high] if ratio else None
            row[f"{key}_differs"] = ratio.differs if ratio else None
        row["rounds_ms"] = [[round(t, 5) for t in r] for r in self.rounds_ms]
        return row


def _fastest(rows: list[Row], precision: str) -> Row | None:
    """Fastest competitor at that precision; ourselves only where no competitor ran, so that a ratio still means
    something.
    """
    timed = [r for r in rows if r.status == "ok" and r.summary and r.precision == precision]
    pool = [r for r in timed if not r.ours] or timed
    return min(pool, key=lambda r: r.summary.median_ms if r.summary else float("inf")) if pool else None


def add_ratios(rows: list[Row]) -> list[dict[str, Any]]:
    """Fill `to_best_float` (float32) and `to_best_int8` within each thread count and batch; returns who the baselines
    were.
    """
    baselines: list[dict[str, Any]] = []
    for key in dict.fromkeys((r.threads, r.batch) for r in rows):
        group = [r for r in rows if (r.threads, r.batch) == key]
        best = {name: _fastest(group, precision) for name, precision in (("float", "f32"), ("int8", "int8"))}
        baselines.append(
            {"threads": key[0], "batch": key[1], **{f"best_{name}": r.label if r else None for name, r in best.items()}}
        )
        for row in group:
            if row.status != "ok" or not row.rounds_ms:
                continue
            if best["float"]:
                row.to_best_float = speed_ratio(best["float"].rounds_ms, row.rounds_ms)
            if best["int8"]:
                row.to_best_int8 = speed_ratio(best["int8"].rounds_ms, row.rounds_ms)
    return baselines
