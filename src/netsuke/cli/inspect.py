"""`netsuke inspect`"""

from __future__ import annotations

from typing import Annotated

import typer

from netsuke.cli import common
from netsuke.cli.common import MODEL_HELP, DebugOption, JsonOption, ShapeOption, WeightsOption, say, write_json


def inspect(
    item: Annotated[str, typer.Argument(metavar="FILE", help="x.nsk, or a MODEL: " + MODEL_HELP)],
    shape: ShapeOption = "",
    weights: WeightsOption = "",
    json: JsonOption = None,
    _debug: DebugOption = False,
) -> None:
    """Layers, shapes, bytes and multiply-adds, and what is or can be packed."""
    from netsuke.pipeline import inspect as look

    with common.progress() as progress:
        progress("read" if item.endswith((".nsk", ".onnx")) else "capture", 0.0)  # an export takes seconds
        found = look(item, shape=shape, weights=weights)
    say(str(found))
    write_json(json, found.as_json())


def register(app: typer.Typer) -> None:
    app.command()(inspect)
