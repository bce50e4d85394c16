"""`netsuke doctor`"""

from __future__ import annotations

from typing import Annotated

import typer

from netsuke.cli.common import DebugOption, JsonOption, note, say, write_json


def doctor(
    again: Annotated[bool, typer.Option("--again", help="Measure the machine's limits once more.")] = False,
    json: JsonOption = None,
    _debug: DebugOption = False,
) -> None:
    """This machine and installation: what works, what does not, and the command that fixes it."""
    from netsuke.measure.doctor import doctor as examine
    from netsuke.measure.machine import read_cached

    if again or not read_cached():
        note("  measuring the limits of this machine, a few seconds, kept for later")
    health = examine(again=again)
    say(str(health))
    write_json(json, health.as_json())
    if not health.ok:
        raise typer.Exit(5)


def register(app: typer.Typer) -> None:
    app.command()(doctor)
