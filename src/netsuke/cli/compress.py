"""`netsuke compress`"""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Annotated, Any

import typer

from netsuke.cli import common
from netsuke.cli.common import DebugOption, JsonOption, ShapeOption, WeightsOption, note, say
from netsuke.core.errors import ContractMissed, Problem, UsageError


def _request(resume: Path | None, given: dict[str, Any]) -> tuple[dict[str, Any], Any]:
    """What to do, and the folder that keeps it: from the command line, or from an interrupted run."""
    from netsuke.pipeline.state import Request, RunFolder

    if resume is not None:
        folder, request = RunFolder.open(resume)
        if given["model"]:
            raise UsageError(
                Problem("--resume takes everything from the run", got=given["model"], hint="leave MODEL out")
            )
        return dataclasses.asdict(Request(**request)), folder
    problems = []
    if not given["model"]:
        problems.append(Problem("no network given", where="MODEL", allowed=common.MODEL_HELP))
    if not given["output"]:
        problems.append(Problem("no output file given", where="-o", hint="-o small.nsk"))
    elif not given["output"].endswith(".nsk"):
        problems.append(Problem("the output is a .nsk file", where="-o", got=given["output"], hint="-o small.nsk"))
    if problems:
        raise UsageError(problems)
    return given, RunFolder.create(Path(given["output"] + ".run"), given)


def _drop_folder(folder: Any, *, keep: bool) -> None:
    if keep:
        note(f"  resume with: netsuke compress --resume {folder.path}")
    else:
        folder.remove()


def compress(
    model: Annotated[str, typer.Argument(metavar="[MODEL]", help=common.MODEL_HELP)] = "",
    output: Annotated[str, typer.Option("-o", "--output", metavar="OUT.nsk", help="Where the result goes.")] = "",
    recipe: Annotated[str, typer.Option(help=common.RECIPE_HELP)] = "",
    bits: common.BitsOption = "",
    plan: Annotated[str, typer.Option(metavar="FILE.toml", help="A plan to follow instead of making one.")] = "",
    calib: Annotated[str, typer.Option(metavar="DATA", help="Calibration data: " + common.DATA_HELP)] = "",
    evaluate: Annotated[
        str, typer.Option("--eval", metavar="DATA", help="Data with labels, or file.py:function (predict) -> metric.")
    ] = "",
    budget: common.BudgetOption = "",
    size: Annotated[str, typer.Option(help="The contract: at most this size, 0.3x or 6.3MB.")] = "",
    drop: Annotated[str, typer.Option(help="The contract: a metric may fall by, top1:1%.")] = "",
    time: Annotated[str, typer.Option(help="A promise: finish within 90s, 20m, ...")] = "",
    effort: Annotated[str, typer.Option(help="fast, normal or thorough.")] = "normal",
    onnx: Annotated[str, typer.Option("--onnx", metavar="FILE", help="Also write ONNX with Q/DQ.")] = "",
    shape: ShapeOption = "",
    weights: WeightsOption = "",
    data_root: common.DataRootOption = None,
    preprocess: common.PreprocessOption = "",
    seed: Annotated[int, typer.Option(help="Seed of everything random.")] = 0,
    threads: Annotated[int | None, typer.Option(help="Threads; default one per core.")] = None,
    allow_simulated: Annotated[
        bool, typer.Option("--allow-simulated", help="Take formats that no kernel runs, computed in float.")
    ] = False,
    resume: Annotated[Path | None, typer.Option("--resume", metavar="RUN", help="Continue an interrupted run.")] = None,
    json: JsonOption = None,
    _debug: DebugOption = False,
) -> None:
    """Quantize, compile, write, verify and time a network; ends with the line of truth."""
    from netsuke.core.budget import Budget
    from netsuke.pipeline import compress as work
    from netsuke.pipeline.evaluate import load_function

    common.recipe_of(recipe, bits, budget)  # what cannot be read is an error before anything is made
    given = {
        **{
            "model": model,
            "recipe": recipe,
            "bits": bits,
            "budget": budget,
            "plan": plan,
            "calib": calib,
            "evaluate": evaluate,
        },
        **{
            "size": size,
            "drop": drop,
            "time": time,
            "effort": effort,
            "shape": shape,
            "weights": weights,
            "seed": seed,
        },
        **{
            "threads": threads,
            "data_root": str(data_root or ""),
            "preprocess": preprocess,
            "output": output,
            "onnx": onnx,
            "allow_simulated": allow_simulated,
        },
    }
    limits = Budget.parse_text(budget, size=size, drop=drop, time=time)
    request, folder = _request(resume, given)
    if resume is not None:
        texts = {key: request[key] for key in ("size", "drop", "time")}
        limits = Budget.parse_text(request["budget"], **texts)
    chosen = common.recipe_of(request["recipe"], request["bits"], request["budget"])
    finished = False
    try:
        with common.progress() as progress:
            small = work(
                request["model"], request["plan"] or None, recipe=chosen, calib=request["calib"],
                evaluate=load_function(request["evaluate"]), budget=limits, effort=request["effort"],
                output=request["output"], shape=request["shape"], weights=request["weights"], seed=request["seed"],
                threads=request["threads"], data_root=request["data_root"] or None, preprocess=request["preprocess"],
                run=folder, allow_simulated=request["allow_simulated"], progress=progress,
                say=lambda line: note("  " + line),
            )  # fmt: skip
        finished = not small.interrupted
    except KeyboardInterrupt:
        _drop_folder(folder, keep=True)
        raise
    except BaseException:
        _drop_folder(folder, keep=False)
        raise
    _drop_folder(folder, keep=not finished)
    if request["onnx"]:
        small.export(request["onnx"])
    say(small.summary())
    common.write_json(json, small.as_json())
    _write_facts(small)
    if small.exactness is not None and not small.exactness.exact:
        from netsuke.core.errors import CheckFailed

        raise CheckFailed(Problem("codes differ from the reference interpreter", where=small.exactness.differing[0]))
    if small.missed or not finished:
        from netsuke.pipeline.advice import advice

        hints = zip(small.missed, advice(small), strict=True)
        problems = [Problem(str(m), hint=h) for m, h in hints] or [Problem("interrupted: this is the best so far")]
        raise ContractMissed(problems, f"{small.path} was written, but the contract was missed")


def _write_facts(small: Any) -> None:
    """OUT.nsk.json beside the file: what `netsuke report` shows without doing the work again."""
    import json

    path = Path(f"{small.path}.json")
    path.write_text(json.dumps(small.as_json(), indent=1, default=str) + "\n", encoding="utf-8")


def register(app: typer.Typer) -> None:
    app.command()(compress)
