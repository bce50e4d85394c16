"""`netsuke train`"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from netsuke.cli import common
from netsuke.cli.common import DebugOption, JsonOption, ShapeOption, WeightsOption, note, say
from netsuke.core.errors import CheckFailed, Problem, UsageError


def _method(text: str, where: str) -> tuple[str, dict[str, str | int | float | bool]]:
    """ "qat/lsq:init=lsq" as name and options."""
    from netsuke.core.options import parse_options

    name, _, options = text.partition(":")
    return name, parse_options(options, where)


def train(
    model: Annotated[str, typer.Argument(metavar="MODEL", help="file.py:factory, or models:NAME.")],
    output: Annotated[str, typer.Option("-o", "--output", metavar="OUT.nsk", help="Where the result goes.")],
    data: Annotated[str, typer.Option("--train", metavar="DATA", help="Training data: " + common.DATA_HELP)],
    evaluate: Annotated[str, typer.Option("--eval", metavar="DATA", help="Data with labels to judge by.")] = "",
    method: Annotated[
        str, typer.Option(metavar="NAME[:k=v,...]", help="A method that trains: qat/lsq, integer/shiftquant, ...")
    ] = "qat/lsq",
    step: Annotated[
        str, typer.Option(metavar="NAME[:k=v,...]", help="What happens with a batch, qat/gaqat; default: one update.")
    ] = "",
    bits: Annotated[
        str, typer.Option(metavar="wXaY", help="Of weights and activations between the ends (room qat); default: w4a4.")
    ] = "",
    stream_bits: Annotated[
        int | None,
        typer.Option(help="Of what additions and means read (room qat); default: as layers. At 2 bits 8 helps."),
    ] = None,
    epochs: Annotated[int, typer.Option(help="Passes over the data.")] = 10,
    batch: Annotated[int, typer.Option(help="Samples a step.")] = 128,
    rate: Annotated[float, typer.Option(help="First learning rate; falls to zero as a cosine (room qat).")] = 0.02,
    minutes: Annotated[float, typer.Option(help="Stop after this time (room qat); 0: no limit.")] = 0.0,
    distill: Annotated[
        float | None, typer.Option(help="Weight of the float network's answers (room qat); default: 0.9.")
    ] = None,
    shape: ShapeOption = "",
    weights: WeightsOption = "",
    data_root: common.DataRootOption = None,
    preprocess: common.PreprocessOption = "",
    seed: Annotated[int, typer.Option(help="Seed of everything random.")] = 0,
    json: JsonOption = None,
    _debug: DebugOption = False,
) -> None:
    """Train a network with its quantizers or in integers, compile it, and prove that the engine gives its answers.

    After every epoch OUT.nsk.checkpoint is written; the same command continues an interrupted run.
    """
    from netsuke.core.recipe import uniform
    from netsuke.pipeline.training import TrainRequest, train_network
    from netsuke.program import write

    if not output.endswith(".nsk"):
        raise UsageError(Problem("the output is a .nsk file", where="-o", got=output, hint="-o small.nsk"))
    widths = [int(b) for b in uniform(bits).removeprefix("cpu-w").split("a")] if bits else None
    name, options = _method(method, "--method")
    step_name, step_options = _method(step, "--step")
    checkpoint = Path(output + ".checkpoint")
    if checkpoint.is_file():
        note(f"  continuing from {checkpoint}")
    request = TrainRequest(
        model=model, data=data, evaluate=evaluate, method=name, options=options, step=step_name,
        step_options=step_options, bits=(widths[0], widths[1]) if widths else None,
        stream_bits=stream_bits, epochs=epochs, batch=batch, rate=rate, minutes=minutes, distill=distill, seed=seed,
        shape=[int(d) for d in shape.split(",")] if shape else None, weights=weights or None, data_root=data_root,
        preprocess=preprocess or None, checkpoint=checkpoint,
    )  # fmt: skip
    try:
        with common.progress() as progress:
            made = train_network(request, progress)
    except KeyboardInterrupt:
        if checkpoint.is_file():
            note(f"  {checkpoint} holds the finished epochs: the same command goes on from there")
        raise
    write(made.program, output)
    checkpoint.unlink(missing_ok=True)
    for text in made.notes:
        note(f"  {text}")
    say(made.summary())
    common.write_json(json, made.as_json() | {"file": output})
    if made.exact is False:
        raise CheckFailed(Problem("the engine's outputs differ from the trained network's", where=output))


def register(app: typer.Typer) -> None:
    app.command()(train)
