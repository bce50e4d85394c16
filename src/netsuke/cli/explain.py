"""`netsuke explain NAME`: the same page as `netsuke methods show NAME`"""

from __future__ import annotations

from typing import Annotated

import typer

from netsuke.cli.common import DebugOption, JsonOption
from netsuke.cli.methods import show


def explain(
    name: Annotated[str, typer.Argument(metavar="METHOD", help="Name as in `netsuke methods`.")],
    json: JsonOption = None,
    _debug: DebugOption = False,
) -> None:
    """One page on one method: idea, equations as implemented, options, cost, limits, paper."""
    show(name, json)


def register(app: typer.Typer) -> None:
    app.command()(explain)
