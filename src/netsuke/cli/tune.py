"""`netsuke tune`"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from netsuke.cli.common import DebugOption, JsonOption, ShapeOption, note, say, write_json


def tune(
    file: Annotated[Path, typer.Argument(metavar="FILE.nsk", help="The compiled network.")],
    shape: ShapeOption = "",
    threads: Annotated[int | None, typer.Option(help="Threads; default one per core.")] = None,
    isa: Annotated[str, typer.Option(help="Force an instruction set.")] = "",
    show: Annotated[bool, typer.Option("--show", help="Print what is known, measure nothing.")] = False,
    json: JsonOption = None,
    _debug: DebugOption = False,
) -> None:
    """Time every way of computing each layer on this CPU; later runs take the fastest. Results never change."""
    from netsuke import engine
    from netsuke.measure import tuning
    from netsuke.measure.feeds import concrete_shapes, random_feeds
    from netsuke.verify.source import parse_shapes

    loaded = engine.load(file, threads=threads, isa=isa or None)
    if show:
        found = tuning.read(str(loaded.isa), int(loaded.threads))
    else:
        known = loaded.meta.get("sample_shape", "")  # what it was calibrated with
        shapes = concrete_shapes(loaded.inputs, parse_shapes(shape or known))
        found = tuning.tune(file, random_feeds(loaded.inputs, shapes), threads=threads, isa=isa or None)
    say(str(found))
    path = tuning.store_path(found.isa, found.threads)
    note(f"  {path}")
    content = {"schema": tuning.SCHEMA, "isa": found.isa, "threads": found.threads, "choices": found.choices()}
    write_json(json, content | {"ms": found.ms, "nodes": found.nodes, "file": str(path)})


def register(app: typer.Typer) -> None:
    app.command()(tune)
