"""Options of the room's methods, without torch."""

from __future__ import annotations

from typing import Any

from netsuke.core.errors import Problem, UsageError


def patterns(text: str) -> list[str]:
    """ "a.*+b" as patterns."""
    return [part.strip() for part in text.split("+") if part.strip()]


def check_numbers(config: Any, where: str, limits: dict[str, tuple[float, float]]) -> None:
    """UsageError that lists every option outside its limits."""
    problems = [
        Problem(key, where, str(getattr(config, key)), f"{low:g} to {high:g}")
        for key, (low, high) in limits.items()
        if not low <= getattr(config, key) <= high
    ]
    if problems:
        raise UsageError(problems)
