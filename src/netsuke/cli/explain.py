"""`netsuke explain`"""

from __future__ import annotations

from typing import Annotated

import typer

from netsuke.cli.common import DebugOption, JsonOption, say, write_json


def explain(
    name: Annotated[str, typer.Argument(metavar="METHOD", help="Name as in `netsuke methods`.")],
    json: JsonOption = None,
    _debug: DebugOption = False,
) -> None:
    """One page on one method: idea, equations as implemented, options, cost, limits, paper."""
    from netsuke.pipeline import explain as page

    result = page(name)
    say(str(result))
    write_json(json, result.as_json())


def register(app: typer.Typer) -> None:
    app.command()(explain)
