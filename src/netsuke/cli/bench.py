"""`netsuke bench`"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from netsuke.cli import common
from netsuke.cli.common import DebugOption, JsonOption, ShapeOption, WeightsOption, choices, note, numbers, say
from netsuke.core.errors import CheckFailed, Problem, UsageError

_PRECISIONS = ("f32", "bf16", "int8")


def _compare(files: list[str], fail_if: str, json: Path | None) -> None:
    from netsuke.measure import compare

    if len(files) != 2:
        raise UsageError(Problem("--compare takes two result files", got=str(len(files)), hint="old.json new.json"))
    limit = compare.parse_limit(fail_if) if fail_if else None
    result = compare.compare(compare.read(Path(files[0])), compare.read(Path(files[1])))
    say(str(result))
    common.write_json(json, result.as_json())
    slower = result.slower(limit) if limit is not None else []
    if slower:
        problems = [
            Problem(f"{c.old_ms:.3f} -> {c.new_ms:.3f} ms", where=f"{c.label}, {c.threads} threads, batch {c.batch}")
            for c in slower
        ]
        raise CheckFailed(problems, f"{len(slower)} row{'s' * (len(slower) > 1)} slower than {fail_if} allows")


def bench(
    items: Annotated[
        list[str],
        typer.Argument(metavar="FILE", help="x.nsk, or a float MODEL alone; with --compare: OLD.json NEW.json."),
    ],
    vs: Annotated[str, typer.Option("--vs", metavar="MODEL", help="The float network: " + common.MODEL_HELP)] = "",
    threads: Annotated[str, typer.Option(help="Thread counts, e.g. 1,2.")] = "1",
    batch: Annotated[str, typer.Option(help="Batch sizes, e.g. 1,8.")] = "1",
    engines: Annotated[str, typer.Option(help="Engines, default all that are installed.")] = "",
    precision: Annotated[str, typer.Option(help="f32, bf16, int8; default all.")] = "",
    isa: Annotated[str, typer.Option(help="Also ours held to these instruction sets, e.g. avx2,portable.")] = "",
    calib: Annotated[
        str, typer.Option(metavar="DATA", help="Calibration for the others' INT8: " + common.DATA_HELP)
    ] = "",
    data_root: common.DataRootOption = None,
    shape: ShapeOption = "",
    weights: WeightsOption = "",
    seconds: Annotated[float, typer.Option(help="Timed seconds per engine and setting.")] = 1.0,
    memory: Annotated[bool, typer.Option(help="Load time, first call, peak memory in processes of their own.")] = True,
    layers: Annotated[
        bool, typer.Option("--layers", help="Per-layer table with rates and distance from the limit.")
    ] = False,
    form: Annotated[str, typer.Option("--format", help="md, csv, json or jsonl on stdout.")] = "md",
    compare: Annotated[bool, typer.Option("--compare", help="Compare two result files instead.")] = False,
    fail_if: Annotated[str, typer.Option("--fail-if", metavar="LIMIT", help="With --compare: slower:3%.")] = "",
    json: JsonOption = None,
    _debug: DebugOption = False,
) -> None:
    """Time a compressed network beside the float one and the engines that are installed, in turns in one run."""
    if compare:
        _compare(items, fail_if, json)
        return
    if fail_if:
        raise UsageError(Problem("--fail-if belongs to --compare", where="--fail-if", got=fail_if))
    if len(items) != 1:
        raise UsageError(Problem("one file to time", got=" ".join(items), hint="--vs MODEL for the float network"))
    from netsuke.measure import bench as measure
    from netsuke.measure import engines as known
    from netsuke.measure.doctor import known_isas as available_isas
    from netsuke.measure.result import FORMATS, render
    from netsuke.measure.table import verdict_text

    choices(form, "--format", FORMATS)
    arrays = common.calibration_arrays(calib, data_root) if calib else None
    names = choices(engines, "--engines", known.NAMES)
    if isa:
        names = [*(names or known.NAMES), *(f"netsuke:{i}" for i in choices(isa, "--isa", available_isas()))]
    precisions = choices(precision, "--precision", _PRECISIONS)
    with common.progress() as progress:
        result = measure(
            items[0], vs or None, threads=numbers(threads, "--threads"), batch=numbers(batch, "--batch"), names=names,
            precisions=precisions, calib=arrays, shape=shape, weights=weights, seconds=seconds, memory=memory,
            layers=layers, progress=progress,
        )  # fmt: skip
    say(render(result, form))
    common.write_json(json, result.as_json())
    if not result.verdict["valid"] and form != "md":
        note(verdict_text(result.verdict))


def register(app: typer.Typer) -> None:
    app.command()(bench)
