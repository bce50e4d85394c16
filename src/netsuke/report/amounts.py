"""Numbers with their units, as people read them."""

from __future__ import annotations


def amount(value: float | None, unit: str) -> str:
    """A number with its unit, as people read it."""
    if value is None:
        return "–"
    if unit == "B":
        return f"{value / 1e6:.2f} MB" if value >= 1e6 else f"{value / 1e3:.1f} kB"
    if unit == "ms":
        return f"{value:.3g} ms" if value < 100 else f"{value:.0f} ms"
    return f"{value:.2f}{unit}"
