"""What to try when a contract was missed: one concrete edit for every line of it, with its expected effect."""

from __future__ import annotations

from collections.abc import Callable

from netsuke.pipeline.small import Small, size

SHOWN = 3


def advice(small: Small) -> list[str]:
    """One hint for every line of `small.missed`, in their order; empty where the line itself says what to do."""
    return [_HINTS[line.kind](small) for line in small.missed]


def _sooner(_small: Small) -> str:
    return "--effort fast (no sensitivities), or fewer calibration samples"


def _smaller(small: Small) -> str:
    """Weights of four bits, with what they would come to; bits per layer where that is not below eight everywhere."""
    wide = sum(row.bytes for row in small.layers if row.status == "packed" and (row.weight_bits or 0) == 8)
    if not wide:
        return "train with fewer bits: netsuke train MODEL --bits w2a2"
    return f"--bits w4a8 (about {size(small.bytes_after - wide // 2)}), or --budget size=... to choose bits per layer"


def _closer(small: Small) -> str:
    """The layers that change the outputs most, to be kept in float, with what that costs."""
    known = [row for row in small.plan.rows if row.output_change is not None and not row.kept]
    worst = sorted(known, key=lambda row: row.output_change or 0.0, reverse=True)[:SHOWN]
    if not worst:
        return "--effort thorough finds the layers that hurt; --recipe cpu-int8-equalized; netsuke train"
    names = {row.name for row in worst}
    more = sum(row.bytes_before - row.bytes for row in small.layers if row.name in names)
    return f'method = "keep" in the plan for {", ".join(row.name for row in worst)} (+{size(more)}), or netsuke train'


_HINTS: dict[str, Callable[[Small], str]] = {
    "size": _smaller,
    "time": _sooner,
    "drop": _closer,
    "unmeasured": lambda _small: "",
}
