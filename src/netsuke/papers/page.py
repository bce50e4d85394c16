"""One page on one paper: the claim in our words, what was built, how to use it, the figures reached, how to run them
again."""

from __future__ import annotations

import math
import textwrap
from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

from netsuke.core.method import methods
from netsuke.papers.ledger import Row
from netsuke.papers.runner import recorded

_WIDTH = 100
_BLOCKS = "▁▂▃▄▅▆▇█"
_POINTS = 48


def results(row: Row) -> list[dict[str, Any]]:
    """Recorded result rows of the claims that the row names as evidence."""
    ids = [item.removeprefix("claim:") for item in row.evidence if item.startswith("claim:")]
    return [result for claim_id in ids if (result := recorded(claim_id))]


def as_json(row: Row) -> dict[str, Any]:
    """The row and its results."""
    return {**asdict(row), "results": results(row)}


def _paragraph(label: str, text: str) -> list[str]:
    return textwrap.wrap(f"{label}: {text}", _WIDTH, subsequent_indent="  ") if text else []


def _usage(row: Row) -> list[str]:
    registry = methods()
    lines = []
    for name in row.components:
        if name in registry:
            lines.append(f"  netsuke explain {name}    {registry[name].purpose}")
        else:
            module, _, attribute = name.partition(":")
            lines.append(f"  from {module} import {attribute}" if attribute else f"  import {module}")
    return ["Use it:", *lines] if lines else []


def figures(result: dict[str, Any]) -> list[str]:
    """A result row as lines: verdict, figures, comparisons, exact parts, the command."""
    machine = result["machine"]
    lines = [f"{result['claim']}: {result['verdict']}  ({result['date']}, {machine['cpu']}, seeds {result['seeds']})"]
    lines += [f"    {name:28} {f['mean']:.6g} ± {f['spread']:.2g}" for name, f in sorted(result["figures"].items())]
    lines += [f"    {'held' if c['holds'] else 'not held'}: {c['rule']}" for c in result["comparisons"]]
    lines += [f"    exact: {name}" for name in result["exact"] if name not in result["broken"]]
    lines += [f"    BROKEN: {name} (seeds {seeds})" for name, seeds in result["broken"].items()]
    curves = result.get("curves", {})
    lines += [f"    {name:28} {picture(seeds[0])}" for name, seeds in curves.items() if seeds]
    return [*lines, f"    again: {result['command']}"]


def picture(values: Sequence[float]) -> str:
    """A curve as one line of blocks between its smallest and its largest value, with the first and the last number."""
    known = [v for v in values if math.isfinite(v)]
    if not known:
        return "no finite value"
    low, high, count = min(known), max(known), min(len(values), _POINTS)
    shown = [values[i * (len(values) - 1) // max(count - 1, 1)] for i in range(count)]
    blocks = "".join(
        "?" if not math.isfinite(v) else _BLOCKS[round((len(_BLOCKS) - 1) * (v - low) / ((high - low) or 1.0))]
        for v in shown
    )
    return f"{values[0]:.3g} {blocks} {values[-1]:.3g}"


def text(row: Row) -> str:
    """The page as plain text."""
    lines = [f"{row.name}  [{row.status}]", row.title, f"{row.area}, {row.role}, tier {row.tier}", ""]
    lines += _paragraph("Claim", row.claim) + _paragraph("Works when", row.works_when)
    lines += _paragraph("Built", row.implemented) + _paragraph("Left out", row.left_out)
    lines += _usage(row)
    for result in results(row):
        lines += ["", *figures(result)]
    tests = [item.removeprefix("test:") for item in row.evidence if item.startswith("test:")]
    lines += ["", *(f"test: {name}" for name in tests)] if tests else []
    return "\n".join(lines)
