"""`netsuke plan`"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from netsuke.cli import common
from netsuke.cli.common import DebugOption, JsonOption, ShapeOption, WeightsOption, say
from netsuke.core.errors import Problem, UsageError


def _edit(plan: object, keep: str, bits: str) -> None:
    """--keep and --bits as edits of the plan; a pattern that matches nothing is an error."""
    for pattern in filter(None, (p.strip() for p in keep.split(","))):
        selection = plan[pattern]  # type: ignore[index]
        selection.method, selection.status, selection.activation_bits = "keep", "float", 32
        for row in selection:
            row.weight_bits = None if row.weight_bits is None else 32
            row.bytes_after, row.reason = row.bytes_before, "kept float on the command line"
    if bits and bits != "8":
        raise UsageError(
            Problem("bits", where="--bits", got=bits, allowed="8", hint="--keep PATTERN leaves layers in float")
        )


def plan(
    model: Annotated[str, typer.Argument(metavar="MODEL", help=common.MODEL_HELP)],
    recipe: Annotated[str, typer.Option(help="Blessed recipe, or a .toml.")] = "cpu-int8",
    calib: Annotated[str, typer.Option(metavar="DATA", help="Calibration data: " + common.DATA_HELP)] = "",
    size: Annotated[str, typer.Option(help="At most this size: 0.3x or 6.3MB.")] = "",
    drop: Annotated[str, typer.Option(help="A metric may fall by: top1:1%.")] = "",
    bits: Annotated[str, typer.Option(help="Uniform bits.")] = "",
    keep: Annotated[
        str, typer.Option("--keep", "--except", help="Layers left in float, patterns: 'head.*,stem'.")
    ] = "",
    effort: Annotated[str, typer.Option(help="fast, normal or thorough.")] = "normal",
    output: Annotated[
        Path | None, typer.Option("-o", "--output", metavar="FILE", help="Write the plan as TOML.")
    ] = None,
    shape: ShapeOption = "",
    weights: WeightsOption = "",
    data_root: common.DataRootOption = None,
    preprocess: common.PreprocessOption = "",
    seed: Annotated[int, typer.Option(help="Seed of everything random.")] = 0,
    json: JsonOption = None,
    _debug: DebugOption = False,
) -> None:
    """Decide per layer what will be done; a table to read, a file to edit and to replay."""
    from netsuke.core.budget import Budget
    from netsuke.pipeline import plan as make

    budget = Budget.parse(size=size or None, drop=drop or None)
    with common.progress() as progress:
        made = make(
            model, recipe=recipe, calib=calib, budget=budget, effort=effort, shape=shape, weights=weights, seed=seed,
            data_root=data_root, preprocess=preprocess, progress=progress,
        )  # fmt: skip
    _edit(made, keep, bits)
    say(str(made))
    if output is not None:
        made.save(output)
        common.note(f"  {output} written: edit it, then netsuke compress {model} --plan {output} ...")
    before, after = made.bytes()
    content = {"schema": "netsuke.plan/1", "counts": made.counts(), "bytes": {"before": before, "after": after}}
    common.write_json(json, content | {"plan": made.to_toml()})


def register(app: typer.Typer) -> None:
    app.command()(plan)
