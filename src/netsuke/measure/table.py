"""Tables of a benchmark for the eye, in Markdown."""

from __future__ import annotations

from typing import Any

from netsuke.measure.rows import Row
from netsuke.measure.stats import Ratio

DEFINITIONS = (
    "Latency: wall time of one call, inputs and outputs in host memory, model loaded, one batch. Ratios are speeds: "
    "above 1 is faster than the best competitor's float32 or INT8 at the same threads and batch, with a 95% bootstrap "
    "interval over interleaved rounds. Load, first call and peak memory: a process of its own. Cosine: against the "
    "first float32 row, random input within the range the compressed network was calibrated for."
)


def _grid(head: list[str], body: list[list[str]], left: int = 1) -> str:
    """A Markdown table; the first `left` columns are words, the others numbers."""
    widths = [max(len(r[i]) for r in [head, *body]) for i in range(len(head))]

    def line(cells: list[str]) -> str:
        padded = [c.ljust(w) if i < left else c.rjust(w) for i, (c, w) in enumerate(zip(cells, widths, strict=True))]
        return "| " + " | ".join(padded) + " |"

    rule = "|" + "|".join("-" * (w + 2) if i < left else "-" * (w + 1) + ":" for i, w in enumerate(widths)) + "|"
    return "\n".join([line(head), rule, *map(line, body)])


def _number(value: float | None, digits: int = 3) -> str:
    return "-" if value is None else f"{value:.{digits}g}" if value < 100 else f"{value:.0f}"


def _ratio(ratio: Ratio | None) -> str:
    return "-" if ratio is None else str(ratio)


_HEAD = [
    "engine",
    "median ms",
    "p90",
    "p99",
    "spread",
    "x best float32",
    "x best INT8",
    "load ms",
    "first ms",
    "peak MB",
]
_HEAD += ["cosine", "threads (busy)"]


def _row(row: Row) -> list[str]:
    s = row.summary
    if s is None:
        return [row.label, row.status, *["-"] * (len(_HEAD) - 2)]
    memory = None if row.peak_bytes is None else row.peak_bytes / 1e6
    busy = "" if row.busy_cores is None else f" ({row.busy_cores:.1f})"
    cells = [row.label, _number(s.median_ms), _number(s.p90_ms), _number(s.p99_ms), f"{s.spread:.0%}"]
    cells += [_ratio(row.to_best_float), _ratio(row.to_best_int8)]
    cells += [_number(row.load_ms), _number(row.first_ms), _number(memory), _number(row.cosine, 5)]
    return [*cells, f"{row.effective_threads}{busy}"]


def rows_markdown(rows: list[Row]) -> str:
    """One table per thread count and batch, fastest first; rows that did not run follow with their reasons."""
    parts = []
    for key in dict.fromkeys((r.threads, r.batch) for r in rows):
        group = [r for r in rows if (r.threads, r.batch) == key]
        timed = sorted((r for r in group if r.summary), key=lambda r: r.summary.median_ms if r.summary else 0.0)
        parts.append(
            f"### {key[0]} thread{'s' * (key[0] > 1)}, batch {key[1]}\n\n" + _grid(_HEAD, [_row(r) for r in timed])
        )
    absent: dict[str, str] = {}
    for r in rows:
        if r.status != "ok":
            absent.setdefault(r.label, f"{r.reason}{f'   install: {r.install}' if r.install else ''}")
    if absent:
        parts.append("Not measured:\n" + "\n".join(f"- {label}: {why}" for label, why in absent.items()))
    return "\n\n".join(parts)


def _layer(r: dict[str, Any]) -> list[str]:
    of_limit = "-" if r["of_limit"] is None else f"{r['of_limit']:.0%}"
    cells = [str(r["name"]), str(r["op"]), str(r["kernel"]), "x".join(map(str, r["shape"])), _number(r["ms"])]
    return [*cells, f"{r['share']:.1%}", _number(r["gmacs"]), _number(r["gbs"]), of_limit, str(r["bound_by"])]


def layers_markdown(layers: list[dict[str, Any]]) -> str:
    """The per-layer table of `layers.layer_table`."""
    head = ["layer", "op", "kernel", "output", "ms", "share", "GMAC/s", "GB/s", "of limit", "limit"]
    return _grid(head, [_layer(r) for r in layers], left=3)


def environment_line(env: dict[str, Any]) -> str:
    cpu = env["cpu"]
    parts = [
        cpu["name"],
        f"{cpu['cores']} cores usable",
        ", ".join(cpu["features"]) or "no SIMD features seen",
        env["os"],
    ]
    parts += [f"governor {env['governor']}", f"load {env['load_average']}"]
    parts += [", ".join(f"{k} {v}" for k, v in env["versions"].items())]
    parts += [f"commit {env['commit']}"] if env["commit"] else []
    return "; ".join(parts)


def verdict_text(verdict: dict[str, Any]) -> str:
    if verdict["valid"]:
        return "Measurement: VALID (spread, drift and rounds within limits)."
    shown = verdict["reasons"][:4]
    more = len(verdict["reasons"]) - len(shown)
    lines = ["Measurement: NOISY. Do not quote these numbers.", *(f"- {r}" for r in shown)]
    lines += [f"- and {more} more"] if more else []
    return "\n".join(lines + [f"- likely cause: {c}" for c in verdict["causes"]])
