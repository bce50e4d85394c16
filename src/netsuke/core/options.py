"""Text to typed options: "percent=99.9,two_sided" becomes a method's frozen config, with every mistake listed."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any, get_args, get_type_hints

from netsuke.core.errors import Problem, UsageError, near

Scalar = str | int | float | bool


def parse_options(text: str, where: str = "") -> dict[str, Scalar]:
    """ "a=1,b=x,flag" as a dictionary; a key without a value is a flag (True). Numbers and true/false are
    recognised."""
    options: dict[str, Scalar] = {}
    if not text.strip():
        return options
    for part in text.split(","):
        key, equals, value = (piece.strip() for piece in part.partition("="))
        if not key or (equals and not value):
            raise UsageError(Problem("an option is empty", where=where, got=repr(part), allowed="key=value or flag"))
        if key in options:
            raise UsageError(Problem("an option is given twice", where=where, got=key))
        options[key] = scalar(value) if equals else True
    return options


def format_options(options: Mapping[str, Scalar]) -> str:
    """The inverse of `parse_options`."""
    return ",".join(key if value is True else f"{key}={_text(value)}" for key, value in options.items())


def scalar(text: str) -> Scalar:
    """A number, true/false, or the text itself."""
    if text in ("true", "false"):
        return text == "true"
    for kind in (int, float):
        try:
            return kind(text)
        except ValueError:
            continue
    return text


def configure(config: type, options: Mapping[str, Scalar], where: str = "") -> Any:
    """An instance of the frozen dataclass `config` with these options; UsageError lists all bad keys and values."""
    fields = {f.name: f for f in dataclasses.fields(config)}
    hints = get_type_hints(config)
    problems, values = [], {}
    for key, value in options.items():
        if key not in fields:
            allowed = near(key, fields) if fields else "no options"
            problems.append(Problem("unknown option", where=where, got=key, allowed=allowed))
            continue
        kinds = get_args(hints[key]) or (hints[key],)
        if isinstance(value, int) and not isinstance(value, bool) and float in kinds and int not in kinds:
            value = float(value)
        if (isinstance(value, bool) and bool not in kinds) or not isinstance(value, kinds):
            wanted = " or ".join(k.__name__ for k in kinds)
            problems.append(
                Problem("an option has the wrong type", where=f"{where} {key}".strip(), got=repr(value), allowed=wanted)
            )
            continue
        values[key] = value
    if problems:
        raise UsageError(problems)
    return config(**values)


def _text(value: Scalar) -> str:
    return str(value).lower() if isinstance(value, bool) else str(value)
