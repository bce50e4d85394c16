"""What all verbs share: where text goes, how errors look, option types, progress."""

from __future__ import annotations

import contextlib
import json
import os
import sys
import traceback
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Annotated, Any

import typer

from netsuke.core.errors import NetsukeError, Problem, UsageError, near

JsonOption = Annotated[
    Path | None, typer.Option("--json", metavar="FILE", help="Also write the result as JSON (keys: docs/json.md).")
]
DebugOption = Annotated[bool, typer.Option("--debug", help="Show the traceback when something fails.")]
ShapeOption = Annotated[
    str, typer.Option("--shape", metavar="DIMS", help='Input shape, "1,3,224,224" or "name=1,3,224,224;other=1,16".')
]
WeightsOption = Annotated[
    str, typer.Option("--weights", metavar="FILE", help="Weights for file.py:factory: .safetensors or .pth.")
]
DataRootOption = Annotated[
    Path | None,
    typer.Option("--data-root", envvar="NETSUKE_DATA", metavar="DIR", help="Where built-in data sets are kept."),
]
PreprocessOption = Annotated[
    str,
    typer.Option("--preprocess", metavar="SPEC", help="For images: resize=256,crop=224,mean=...,std=..., or a .toml."),
]
MODEL_HELP = "x.onnx, x.pt2, file.py:factory, or models:NAME."
DATA_HELP = "x.npz (x, optional y), a folder of images by class, or digits, fashion-mnist, mnist, cifar10."
RECIPE_HELP = "Blessed recipe (default cpu-int8; cpu-w4a8 and so on; cpu-mixed with a budget), or a .toml."
BudgetOption = Annotated[
    str,
    typer.Option("--budget", metavar="LIMITS", help="Choose bits per layer: size=0.15x, bops=0.5x, latency=0.8x."),
]
BitsOption = Annotated[str, typer.Option("--bits", metavar="BITS", help="Uniform bits: w4a8, or 4 for both.")]
SensitivityOption = Annotated[str, typer.Option(help="Of a bit search: kl, layer_loss, hessian, sqnr or emq.")]
AllocatorOption = Annotated[str, typer.Option(help="Of a bit search: integer_program, dynamic_program or pareto.")]
FormatsOption = Annotated[str, typer.Option(help="Of a bit search: what layers may have, w4a8+w8a8.")]

# typer brings click, as a dependency or inside itself depending on its version; these are its classes in either case.
_UsageTrouble: type[Exception] = typer.BadParameter.__bases__[0]
_Trouble: type[Exception] = _UsageTrouble.__bases__[0]

# Exit status of a process ended by Ctrl-C, as shells expect it.
INTERRUPTED = 130


def say(text: str = "") -> None:
    """A result: to stdout."""
    print(text, flush=True)


def note(text: str) -> None:
    """Anything that is not the result: to stderr."""
    print(text, file=sys.stderr, flush=True)


def write_json(path: Path | None, content: dict[str, Any]) -> None:
    """Write `content` where --json asked for it; "-" is stdout."""
    if path is None:
        return
    text = json.dumps(content, indent=1, allow_nan=False, default=str)
    if str(path) == "-":
        say(text)
        return
    try:
        path.write_text(text + "\n", encoding="utf-8")
    except OSError as error:
        raise UsageError(Problem("cannot write", where=str(path), got=str(error.strerror))) from None


def recipe_of(
    recipe: str, bits: str = "", budget: str = "", sensitivity: str = "", allocator: str = "", formats: str = ""
) -> Any:
    """The recipe that --recipe, --bits or --budget (with the options of a bit search) ask for."""
    from netsuke.core.recipe import Recipe, Step, uniform

    given = [name for name, value in (("--recipe", recipe), ("--bits", bits), ("--budget", budget)) if value]
    if bits and len(given) > 1:
        raise UsageError(Problem("two ways to say how many bits", got=", ".join(given), hint="--bits alone"))
    options = {"sensitivity": sensitivity, "allocator": allocator, "formats": formats}
    asked = {key: value for key, value in options.items() if value}
    if bits:
        recipe = uniform(bits)
    if not (recipe or budget or asked):
        return None
    made = Recipe.make(recipe or "cpu-mixed")
    if not asked:
        return made
    searches = [step.method for step in made.steps if step.method == "bits/search"]
    if not searches:
        raise UsageError(Problem("this recipe has no bit search", got=made.name, hint="leave --recipe out"))
    steps = [Step(s.method, {**s.options, **asked}) if s.method == "bits/search" else s for s in made.steps]
    return Recipe(made.name, tuple(steps))


def numbers(text: str, option: str) -> list[int]:
    """ "1,2,4" as integers of at least one; UsageError names the option."""
    try:
        values = [int(v) for v in text.split(",")]
    except ValueError:
        values = []
    if not values or min(values) < 1:
        raise UsageError(Problem("not a list of counts", where=option, got=text, allowed='like "1" or "1,2,4"'))
    return values


def choices(text: str, option: str, allowed: Sequence[str]) -> list[str]:
    """ "a,b" with every name known; UsageError lists all unknown ones with near matches."""
    names = [n.strip() for n in text.split(",") if n.strip()]
    problems = [
        Problem("unknown value", where=option, got=n, allowed=near(n, allowed)) for n in names if n not in allowed
    ]
    if problems:
        raise UsageError(problems)
    return names


@contextlib.contextmanager
def progress() -> Iterator[Callable[[str, float], None]]:
    """A callback (text, fraction) that draws one bar on stderr when that is a terminal, and plain lines otherwise."""
    if not sys.stderr.isatty():
        last = ""

        def line(text: str, _fraction: float) -> None:
            nonlocal last
            if text != last:
                note(f"  {text}")
                last = text

        yield line
        return
    from rich.console import Console
    from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        TimeElapsedColumn(),
        TextColumn("left"),
        TimeRemainingColumn(),
    )
    with Progress(*columns, console=Console(stderr=True), transient=True) as bar:
        task = bar.add_task("start", total=1.0)

        def update(text: str, fraction: float) -> None:
            if bar.tasks[task].description != text:
                bar.reset(task, total=1.0, description=text)
            bar.update(task, completed=fraction, description=text)

        yield update


def _paint(text: str, code: str) -> str:
    colour = sys.stderr.isatty() and not os.environ.get("NO_COLOR")
    return f"\033[{code}m{text}\033[0m" if colour else text


def _columns(problems: Sequence[Problem]) -> list[str]:
    """Problems as aligned columns: where, what and got, allowed, try. Empty columns are left out."""
    rows = [
        [
            p.where,
            p.what + (f": {p.got}" if p.got else ""),
            f"allowed: {p.allowed}" if p.allowed and not p.allowed.startswith("did you mean") else p.allowed,
            f"try: {p.hint}" if p.hint else "",
        ]
        for p in problems
    ]
    keep = [i for i in range(4) if any(r[i] for r in rows)]
    widths = {i: min(60, max(len(r[i]) for r in rows)) for i in keep}
    return ["  " + "    ".join(r[i].ljust(widths[i]) for i in keep).rstrip() for r in rows]


def explain_error(error: NetsukeError) -> str:
    """The error as the user reads it: a head line, then one aligned line per problem."""
    count = len(error.problems)
    head = error.summary or f"{count} problem{'s' if count != 1 else ''}"
    return "\n".join([f"{_paint('netsuke', '1;31')}: {head}", *_columns(error.problems)])


def _usage_error(error: Any) -> str:
    """click's complaint, with near matches for a mistyped verb (click adds them for options itself)."""
    text = str(error.format_message())
    if type(error).__name__ == "NoArgsIsHelpError":  # `netsuke` alone: the message is the whole help
        return text
    context = error.ctx
    if context is not None and hasattr(context.command, "list_commands") and text.startswith("No such command"):
        typed = text.split("'")[1]
        text = f"unknown verb: {typed}    {near(typed, context.command.list_commands(context))}"
    hint = f"    try: {context.command_path} --help" if context is not None else ""
    return f"{_paint('netsuke', '1;31')}: {text}{hint}"


def run(app: typer.Typer, arguments: Sequence[str]) -> int:
    """Run the command line and return its exit status; errors are printed, never raised, except with --debug."""
    debug = "--debug" in arguments
    try:
        command = typer.main.get_command(app)
        status = command.main(args=list(arguments), prog_name="netsuke", standalone_mode=False)
        if status == INTERRUPTED:  # newer versions of typer turn Ctrl-C into this status themselves
            note("netsuke: interrupted")
        return status if isinstance(status, int) else 0
    except NetsukeError as error:
        if debug:
            traceback.print_exc()
        note(explain_error(error))
        return error.exit_code
    except typer.Exit as error:
        return int(error.exit_code)
    except _UsageTrouble as error:
        note(_usage_error(error))
        return 2
    except _Trouble as error:
        note(f"netsuke: {error}")
        return 2
    except (KeyboardInterrupt, typer.Abort):
        note("netsuke: interrupted")
        return INTERRUPTED
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except Exception as error:
        if debug:
            raise
        note(f"{_paint('netsuke', '1;31')}: internal error: {type(error).__name__}: {error}")
        note("  This is a bug of netsuke. Run again with --debug and report the traceback.")
        return 70


def calibration_arrays(spec: str, root: Path | None, limit: int = 128) -> dict[str, Any]:
    """The first samples of a data set by input name; "" stands for the only input."""
    from netsuke.data import fields, load_data

    data = load_data(spec, root, role="calib")
    return dict(fields(next(iter(data.batches(limit)))[0]))
