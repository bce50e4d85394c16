"""The `netsuke` command."""

from __future__ import annotations

import importlib
import importlib.util
import sys
from typing import Annotated

import typer

from netsuke import __version__
from netsuke.cli import common

# In the order of `netsuke --help`. A verb whose file is not part of this installation is left out of the help.
VERBS = (
    "doctor",
    "inspect",
    "plan",
    "compress",
    "train",
    "check",
    "bench",
    "report",
    "run",
    "tune",
    "methods",
    "explain",
    "papers",
    "claim",
)

app = typer.Typer(
    name="netsuke",
    help="Make a trained network small and fast on CPUs, and prove that nothing broke.",
    no_args_is_help=True,
    add_completion=True,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
    context_settings={"help_option_names": ["-h", "--help"]},
)


def _print_version(value: bool) -> None:
    if value:
        common.say(f"netsuke {__version__}")
        raise typer.Exit


@app.callback()
def _root(
    version: Annotated[
        bool, typer.Option("--version", callback=_print_version, is_eager=True, help="Print the version and leave.")
    ] = False,
) -> None:
    """Make a trained network small and fast on CPUs, and prove that nothing broke."""


for _verb in VERBS:
    if importlib.util.find_spec(f"netsuke.cli.{_verb}") is not None:
        importlib.import_module(f"netsuke.cli.{_verb}").register(app)


def main() -> None:
    """Entry point of the console script."""
    sys.exit(common.run(app, sys.argv[1:]))


if __name__ == "__main__":
    main()
