"""`netsuke methods`"""

from __future__ import annotations

import fnmatch
from typing import Annotated

import typer

from netsuke.cli.common import DebugOption, JsonOption, say, write_json
from netsuke.core.errors import Problem, UsageError, near


def methods(
    pattern: Annotated[str, typer.Argument(metavar="[PATTERN]", help="Shell pattern, e.g. 'quantize/*'.")] = "*",
    json: JsonOption = None,
    _debug: DebugOption = False,
) -> None:
    """The catalogue of methods: purpose, needs, status, and whether this CPU runs it for real."""
    from netsuke.core.method import methods as catalogue

    table = catalogue()
    wanted = pattern if "*" in pattern or "/" in pattern else f"{pattern}/*"
    found = [m for name, m in table.items() if fnmatch.fnmatch(name, wanted)]
    if not found:
        rooms = sorted({m.room for m in table.values()})
        raise UsageError(Problem("no method matches", got=pattern, allowed=near(pattern, [*table, *rooms])))
    width = max(len(m.name) for m in found)
    for m in found:
        real = "packed" if m.exports else "-"
        say(
            f"{m.name:{width}}  {m.status:6}  {real:6}  {m.purpose}"
            + (f"   needs {', '.join(m.needs)}" if m.needs else "")
        )
    keys = ("name", "purpose", "paper", "needs", "touches", "exports", "status", "cost")
    write_json(json, {"schema": "netsuke.methods/1", "methods": [{k: getattr(m, k) for k in keys} for m in found]})


def register(app: typer.Typer) -> None:
    app.command()(methods)
