"""`netsuke plan`"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from netsuke.cli import common
from netsuke.cli.common import DebugOption, JsonOption, ShapeOption, WeightsOption, say


def _edit(plan: object, keep: str) -> None:
    """--keep as an edit of the plan; a pattern that matches nothing is an error."""
    for pattern in filter(None, (p.strip() for p in keep.split(","))):
        selection = plan[pattern]  # type: ignore[index]
        selection.method, selection.status, selection.activation_bits = "keep", "float", 32
        for row in selection:
            row.weight_bits = None if row.weight_bits is None else 32
            row.bytes_after, row.reason = row.bytes_before, "kept float on the command line"


def plan(
    model: Annotated[str, typer.Argument(metavar="MODEL", help=common.MODEL_HELP)],
    recipe: Annotated[str, typer.Option(help=common.RECIPE_HELP)] = "",
    calib: Annotated[str, typer.Option(metavar="DATA", help="Calibration data: " + common.DATA_HELP)] = "",
    size: Annotated[str, typer.Option(help="At most this size: 0.3x or 6.3MB.")] = "",
    drop: Annotated[str, typer.Option(help="A metric may fall by: top1:1%.")] = "",
    budget: common.BudgetOption = "",
    bits: common.BitsOption = "",
    sensitivity: common.SensitivityOption = "",
    allocator: common.AllocatorOption = "",
    formats: common.FormatsOption = "",
    time: Annotated[str, typer.Option(help="Finish within 90s, 20m, ...: best so far.")] = "",
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

    limits = Budget.parse_text(budget, size=size, drop=drop, time=time)
    chosen = common.recipe_of(recipe, bits, budget, sensitivity, allocator, formats)
    with common.progress() as progress:
        made = make(
            model, recipe=chosen, calib=calib, budget=limits, effort=effort, shape=shape, weights=weights, seed=seed,
            data_root=data_root, preprocess=preprocess, progress=progress,
        )  # fmt: skip
    _edit(made, keep)
    say(str(made))
    if output is not None:
        made.save(output)
        common.note(f"  {output} written: edit it, then netsuke compress {model} --plan {output} ...")
    before, after = made.bytes()
    content: dict[str, Any] = {
        "schema": "netsuke.plan/1",
        "counts": made.counts(),
        "bytes": {"before": before, "after": after},
    }
    content["curve"] = made.curve
    common.write_json(json, content | {"plan": made.to_toml()})


def register(app: typer.Typer) -> None:
    app.command()(plan)
