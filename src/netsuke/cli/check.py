"""`netsuke check`"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from netsuke.cli import common
from netsuke.cli.common import DebugOption, JsonOption, ShapeOption, WeightsOption, say


def check(
    compressed: Annotated[Path, typer.Argument(metavar="FILE.nsk", help="The compressed network.")],
    against: Annotated[str, typer.Option("--against", metavar="MODEL", help="The float network: " + common.MODEL_HELP)],
    data: Annotated[str, typer.Option("--data", metavar="DATA", help=common.DATA_HELP)],
    drop: Annotated[str, typer.Option("--drop", "--max-drop", help="Fail beyond this drop: top1:1%.")] = "",
    samples: Annotated[int, typer.Option(help="At most so many samples; 0: all.")] = 0,
    layers: Annotated[bool, typer.Option(help="Compare layer by layer.")] = True,
    worst: Annotated[int, typer.Option(help="Show this many of the worst layers.")] = 5,
    batch: Annotated[int, typer.Option(help="Samples per call.")] = 32,
    threads: Annotated[int | None, typer.Option(help="Threads; default one per core.")] = None,
    shape: ShapeOption = "",
    weights: WeightsOption = "",
    data_root: common.DataRootOption = None,
    preprocess: common.PreprocessOption = "",
    json: JsonOption = None,
    _debug: DebugOption = False,
) -> None:
    """Is it still as good: metrics before and after, parity layer by layer, exactness, batch sizes."""
    from netsuke.core.budget import Budget
    from netsuke.data import load_data
    from netsuke.verify import check as examine

    limits = dict(Budget(drop=drop or None).drop)
    found = load_data(data, data_root, role="eval", preprocess=preprocess or None)
    with common.progress() as progress:
        result = examine(
            compressed, against, found, shape=shape, weights=weights, limits=limits, batch=batch, samples=samples,
            layers=layers, threads=threads, progress=progress,
        )  # fmt: skip
    say(str(result))
    if worst and result.layers:
        known = sorted((p for p in result.layers if p.sqnr_db is not None), key=lambda p: p.sqnr_db or 0.0)[:worst]
        width = max((len(p.layer) for p in known), default=0)
        for p in known:
            say(f"  {p.layer:{width}}  {p.op:14} SQNR {p.sqnr_db:6.1f} dB   cosine {p.cosine:.6f}")
    common.write_json(json, result.as_json())
    result.raise_if_bad()


def register(app: typer.Typer) -> None:
    app.command()(check)
