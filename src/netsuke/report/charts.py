"""Charts as inline SVG: drawn here, styled by style.css, readable without JavaScript (values in <title> and in the
table).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from html import escape
from typing import Any


@dataclass(frozen=True)
class Bar:
    """One row of a bar chart: a value before and one after, either may be missing."""

    label: str
    before: float | None
    after: float | None
    title: str
    mark: str = ""  # CSS class of the second bar


def _short(text: str, limit: int = 26) -> str:
    return text if len(text) <= limit else "…" + text[-(limit - 1) :]


def paired_bars(bars: Sequence[Bar], unit: str, left: int = 190, width: int = 720, shown: str = "{:,.3g}") -> str:
    """Two thin bars a row, before (pale) and after, on one linear scale from zero."""
    largest = max((v for b in bars for v in (b.before, b.after) if v is not None), default=0.0) or 1.0
    step, right = 26, 84
    height = step * len(bars) + 8
    room = width - left - right
    parts = [
        f'<svg class="bars" viewBox="0 0 {width} {height}" role="img" aria-label="before and after, {escape(unit)}">'
    ]
    for index, bar in enumerate(bars):
        y = 4 + index * step
        parts.append(
            f"<g><title>{escape(bar.title)}</title>"
            f'<rect class="hit" x="0" y="{y - 2}" width="{width}" height="{step}"/>'
        )
        parts.append(
            f'<text class="label" x="{left - 10}" y="{y + 14}" text-anchor="end">{escape(_short(bar.label))}</text>'
        )
        single = 6 if bar.before is None else 11
        for value, offset, name in ((bar.before, 2, "before"), (bar.after, single, f"after {bar.mark}".strip())):
            if value is not None:
                long = max(1.0, room * value / largest)
                parts.append(f'<rect class="{name}" x="{left}" y="{y + offset}" width="{long:.1f}" height="8" rx="2"/>')
        last = max(v for v in (bar.before, bar.after, 0.0) if v is not None)
        if bar.after is not None:
            text = shown.format(bar.after)
            parts.append(
                f'<text class="value" x="{left + room * last / largest + 8:.1f}" y="{y + 15}">{escape(text)}</text>'
            )
        parts.append("</g>")
    return "".join([*parts, "</svg>"])


def growth_line(points: Sequence[dict[str, Any]], border: float, width: int = 960, height: int = 280) -> str:
    """SQNR in dB over the layers in execution order; the dashed line is the border below which a layer departs."""
    values = [p["sqnr_db"] for p in points]
    known = [v for v in values if v is not None]
    if not known:
        return "<p>Every compared layer is equal to the float network.</p>"
    top, low = max(*known, border) + 5, min(0.0, min(known) - 3)
    left, right, above, below = 46, 14, 12, 34
    room_x, room_y = width - left - right, height - above - below

    def at(index: int, value: float) -> tuple[float, float]:
        x = left + room_x * (index / max(len(values) - 1, 1))
        return x, above + room_y * (1 - (value - low) / (top - low))

    parts = [
        f'<svg class="growth" viewBox="0 0 {width} {height}" role="img" aria-label="error growth through the layers">'
    ]
    for value in range(int(low // 10) * 10, int(top) + 1, 10):
        if value >= low:
            y = at(0, value)[1]
            parts.append(f'<line class="grid" x1="{left}" y1="{y:.1f}" x2="{width - right}" y2="{y:.1f}"/>')
            parts.append(f'<text class="tick" x="{left - 8}" y="{y + 4:.1f}" text-anchor="end">{value}</text>')
    y = at(0, border)[1]
    parts.append(f'<line class="border" x1="{left}" y1="{y:.1f}" x2="{width - right}" y2="{y:.1f}"/>')
    placed = [(*at(i, top if v is None else v), p, v) for i, (p, v) in enumerate(zip(points, values, strict=True))]
    path = " ".join(f"{'M' if i == 0 else 'L'}{x:.1f},{y:.1f}" for i, (x, y, _, _) in enumerate(placed))
    base = above + room_y
    parts.append(f'<path class="area" d="{path} L{placed[-1][0]:.1f},{base} L{placed[0][0]:.1f},{base} Z"/>')
    parts.append(f'<path class="line" d="{path}"/>')
    for x, y, p, v in placed:
        mark = "dot low" if v is not None and v < border else "dot"
        told = "equal" if v is None else f"{v:.1f} dB"
        parts.append(
            f'<circle class="{mark}" cx="{x:.1f}" cy="{y:.1f}" r="4">'
            f"<title>{escape(p['layer'])}: {told}</title></circle>"
        )
    parts.append(f'<text class="tick" x="{left}" y="{height - 8}">first layer</text>')
    parts.append(f'<text class="tick" x="{width - right}" y="{height - 8}" text-anchor="end">output</text>')
    parts.append(f'<text class="tick" x="4" y="{above + 2}">dB</text>')
    return "".join([*parts, "</svg>"])


def ratio_bar(before: float | None, after: float | None) -> str:
    """A thin bar: how much of the float network's number is left."""
    if not before or after is None or before <= 0:
        return ""
    share = min(1.0, after / before)
    return (
        '<svg class="ratio" viewBox="0 0 200 6" preserveAspectRatio="none" aria-hidden="true">'
        f'<rect class="rest" width="200" height="6" rx="3"/>'
        f'<rect class="part" width="{200 * share:.1f}" height="6" rx="3"/></svg>'
    )
