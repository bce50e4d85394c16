"""Curves of quality against total bits, as pictures, a Markdown table and a page in the style of the reports."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from html import escape
from typing import Any

from netsuke.report.page import asset

# Colours of curves come from the page's style: accent for float and trained, the rest by width.
_COLOURS = {"float": "ink", "w8": "good", "w4": "warn", "w3": "accent", "w2": "kept"}
_HEADER = ["generator", "size", "weights", "training", "total bits", "file bytes", "loss", "distance"]


def table(result: Mapping[str, Any]) -> tuple[list[str], list[list[str]]]:
    """Header and one row a cell."""
    rows = [
        [
            r["family"], str(r["size"]), "float32" if r["training"] == "float" else f"{r['bits']} bits", r["training"],
            f"{r['total_bits']:,}", f"{r['file_bytes']:,}", f"{r['loss']:.4f}", f"{r['distance']:.4f}",
        ]
        for r in result["rows"]
    ]  # fmt: skip
    return _HEADER, rows


def fits(result: Mapping[str, Any]) -> tuple[list[str], list[list[str]]]:
    """Header and one row a curve: how fast distance and loss fall with total bits."""
    rows = [
        [name, *(f"{both[f][k]:.3f}" for f in ("distance", "loss") for k in ("exponent", "r2"))]
        for name, both in result["fits"].items()
    ]
    return ["curve", "exponent of distance", "r2", "exponent of loss", "r2"], rows


def shifts(result: Mapping[str, Any]) -> tuple[list[str], list[list[str]]]:
    """Header and one row a pair of trainings: how much lower the first lies, in per cent."""
    rows = []
    for name, both in result["shifts"].items():
        for figure, found in both.items():
            told = ", ".join(f"{k} {100 * (1 - math.exp(-v)):+.1f} %" for k, v in found.items() if k != "least")
            rows.append([name, figure, told])
    return ["training", "of", "lower by"], rows


def markdown(result: Mapping[str, Any]) -> str:
    """The three tables as Markdown."""
    lines = [f"# Quality against total bits, on {result['machine']['cpu']}", ""]
    parts = (("Fits: ln Q = a - exponent ln(total bits)", fits), ("Shifts", shifts), ("Cells", table))
    for title, make in parts:
        header, rows = make(result)
        lines += [f"## {title}", "", "| " + " | ".join(header) + " |", "|" + "---|" * len(header)]
        lines += ["| " + " | ".join(row) + " |" for row in rows] + [""]
    return "\n".join(lines).rstrip() + "\n"


def _curves(rows: Sequence[Mapping[str, Any]]) -> dict[str, list[Mapping[str, Any]]]:
    found: dict[str, list[Mapping[str, Any]]] = {}
    for row in sorted(rows, key=lambda r: r["size"]):
        name = "float" if row["training"] == "float" else f"w{row['bits']} {row['training']}"
        found.setdefault(name, []).append(row)
    return found


def picture(rows: Sequence[Mapping[str, Any]], figure: str, width: int = 520, height: int = 360) -> str:
    """Inline SVG, both axes logarithmic: one line a width and training, one dot a size (values in its title)."""
    if not rows:
        return '<p class="quiet">Nothing measured.</p>'
    left, right, above, below = 52, 92, 14, 40
    xs, ys = [math.log10(r["total_bits"]) for r in rows], [math.log10(max(r[figure], 1e-9)) for r in rows]
    low, span = (min(xs), min(ys)), (max(max(xs) - min(xs), 1e-9), max(max(ys) - min(ys), 1e-9))

    def at(row: Mapping[str, Any]) -> tuple[float, float]:
        x = (math.log10(row["total_bits"]) - low[0]) / span[0]
        y = (math.log10(max(row[figure], 1e-9)) - low[1]) / span[1]
        return left + x * (width - left - right), above + (1 - y) * (height - above - below)

    parts = [f'<svg viewBox="0 0 {width} {height}" role="img" aria-label="{escape(figure)} against total bits">']
    for power in range(math.floor(low[0]), math.ceil(low[0] + span[0]) + 1):
        x = left + (power - low[0]) / span[0] * (width - left - right)
        if left - 1 <= x <= width - right + 1:
            parts.append(
                f'<line x1="{x:.1f}" y1="{above}" x2="{x:.1f}" y2="{height - below}" style="stroke:var(--rule)"/>'
                f'<text x="{x:.1f}" y="{height - below + 18}" text-anchor="middle">10^{power}</text>'
            )
    for i in range(4):
        value = 10 ** (low[1] + span[1] * i / 3)
        y = above + (1 - i / 3) * (height - above - below)
        parts.append(
            f'<line x1="{left}" y1="{y:.1f}" x2="{width - right}" y2="{y:.1f}" style="stroke:var(--rule)"/>'
            f'<text x="{left - 6}" y="{y + 4:.1f}" text-anchor="end">{value:.3g}</text>'
        )
    for name, part in _curves(rows).items():
        colour = f"var(--{_COLOURS.get(name.split()[0], 'soft')})"
        dash = (
            ""
            if name.split()[-1] in ("ptq", "float")
            else ";stroke-dasharray:" + ("2 4" if name.endswith("labels") else "7 3")
        )
        points = [at(r) for r in part]
        line = " ".join(f"{'M' if i == 0 else 'L'}{x:.1f},{y:.1f}" for i, (x, y) in enumerate(points))
        parts.append(f'<path d="{line}" style="fill:none;stroke-width:2;stroke:{colour}{dash}"/>')
        for (x, y), r in zip(points, part, strict=True):
            told = f"{name}, size {r['size']}: {r[figure]:.4g} at {r['total_bits']:,} bits"
            parts.append(
                f'<circle cx="{x:.1f}" cy="{y:.1f}" r="4" style="fill:{colour}"><title>{escape(told)}</title></circle>'
            )
        parts.append(f'<text x="{points[-1][0] + 8:.1f}" y="{points[-1][1] + 4:.1f}">{escape(name)}</text>')
    parts.append(f'<text x="{left}" y="{height - 6}">total bits of the weight matrices</text>')
    return "".join([*parts, "</svg>"])


def _html_table(header: list[str], rows: list[list[str]]) -> str:
    head = "".join(f'<th scope="col">{escape(cell)}</th>' for cell in header)
    body = "".join("<tr>" + "".join(f"<td>{escape(c)}</td>" for c in row) + "</tr>" for row in rows)
    return f'<div class="scroll"><table id="layers"><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table></div>'


def html(result: Mapping[str, Any]) -> str:
    """One self-contained page: pictures, fits, shifts, cells, conditions, the data as JSON."""
    pictures = ""
    for family in dict.fromkeys(r["family"] for r in result["rows"]):
        rows = [r for r in result["rows"] if r["family"] == family]
        for figure, told in (("distance", "Frechet distance to the digits"), ("loss", "loss on test digits")):
            pictures += f"<div><h3>{escape(family)}: {told}</h3>{picture(rows, figure)}</div>"
    told = ", ".join(f"{k} {v}" for k, v in result["conditions"].items())
    data = json.dumps(result, allow_nan=False).replace("<", "\\u003c")
    sections = [
        "<section><h2>Quality against total bits</h2><p>Lower is better. Dots are sizes; solid lines are quantized "
        f'without training, dashed ones trained at that width.</p><div class="pair">{pictures}</div></section>',
        f"<section><h2>Fits</h2><p>ln Q = a - exponent ln(total bits).</p>{_html_table(*fits(result))}</section>",
        f"<section><h2>Shifts</h2>{_html_table(*shifts(result))}</section>",
        f"<section><h2>Cells</h2>{_html_table(*table(result))}</section>",
        f"<section><h2>Conditions</h2><p>{escape(told)}</p></section>",
    ]
    return (
        '<!doctype html><html lang="en"><head><meta charset="utf-8"><title>Scaling · netsuke report</title>'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        '<meta name="color-scheme" content="light dark"><link rel="icon" href="data:,">'
        f"<style>{asset('style.css')}</style></head><body><header>"
        f'<div class="top"><p class="brand">netsuke<span>report</span></p></div><h1>Bit-level scaling</h1>'
        f'<pre class="summary">{escape(result["machine"]["cpu"])}, one thread</pre></header>'
        f"<main>{''.join(sections)}</main>"
        f'<script type="application/json" id="data">{data}</script></body></html>\n'
    )
