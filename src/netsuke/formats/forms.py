"""Number formats of weights whose codes are whole 8-bit integers, so that the integer kernels run them.

Source: Dotzel et al., "FLIQS: One-Shot Mixed-Precision Floating-Point and Integer Quantization Search", 2024. Floats
with two exponent bits are integers times a power of two: E2M1 is 0, 1, 2, 3, 4, 6, 8, 12 halves.
"""

from __future__ import annotations

from netsuke.core.errors import Problem, UsageError, near


def _float_levels(mantissa: int) -> list[int]:
    """Values of E2M`mantissa` that are not negative, in units of the smallest."""
    step = 1 << mantissa
    return [*range(step), *(step + m for m in range(step)), *(2 * (step + m) for m in range(step)),
            *(4 * (step + m) for m in range(step))]  # fmt: skip


# Format -> bits of a weight, levels that are not negative.
FORMS: dict[str, tuple[int, list[int]]] = {
    **{f"int{b}": (b, list(range(2 ** (b - 1)))) for b in (2, 3, 4, 5, 6, 8)},
    "e2m1": (4, _float_levels(1)),
    "e2m2": (5, _float_levels(2)),
    "e2m3": (6, _float_levels(3)),
}


def parse_forms(text: str, where: str) -> tuple[str, ...]:
    """ "int4+e2m1+int8" as names; UsageError lists every unknown one."""
    names = tuple(part.strip() for part in text.split("+"))
    problems = [Problem("format", where, n, near(n, FORMS)) for n in names if n not in FORMS]
    if not problems and len(set(names)) < 2:
        problems = [Problem("formats to choose from", where, text, "two or more, joined by +")]
    if problems:
        raise UsageError(problems)
    return names
