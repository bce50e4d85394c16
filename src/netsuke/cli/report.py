"""`netsuke report`"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from netsuke.cli.common import DebugOption, JsonOption, note, say, write_json


def report(
    file: Annotated[Path, typer.Argument(metavar="FILE.nsk", help="The compressed network.")],
    output: Annotated[Path, typer.Option("-o", "--output", metavar="FILE.html", help="The page.")] = Path(
        "report.html"
    ),
    check: Annotated[str, typer.Option("--check", metavar="FILE", help="JSON of netsuke check.")] = "",
    bench: Annotated[str, typer.Option("--bench", metavar="FILE", help="JSON of netsuke bench.")] = "",
    line: Annotated[bool, typer.Option("--line", help="Only print the one line of truth; write nothing.")] = False,
    json: JsonOption = None,
    _debug: DebugOption = False,
) -> None:
    """One HTML page that needs no network, the same as JSON, and an ONNX for viewers."""
    from netsuke.report import report as make

    made = make(file, check=check, bench=bench)
    if line:
        say(made.line())
        write_json(json, made.as_json())
        return
    for written in made.save(output):
        say(str(written))
    for line in made.content["notes"]:
        note(f"  note: {line}")
    write_json(json, made.as_json())


def register(app: typer.Typer) -> None:
    app.command()(report)
