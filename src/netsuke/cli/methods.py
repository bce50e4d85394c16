"""`netsuke methods`, `netsuke methods show NAME`"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from netsuke.cli.common import DebugOption, JsonOption, say, write_json
from netsuke.core.errors import Problem, UsageError


def methods(
    words: Annotated[
        list[str] | None,
        typer.Argument(metavar="[PATTERN]", help="Shell pattern, e.g. 'quantize/*'; or 'show NAME' for one page."),
    ] = None,
    support: Annotated[
        bool, typer.Option("--support", help="Which layer runs in which format on this CPU, and by which kernel.")
    ] = False,
    categories: Annotated[
        bool, typer.Option("--categories", help="The kinds of quantization, and what stands for each of them.")
    ] = False,
    json: JsonOption = None,
    _debug: DebugOption = False,
) -> None:
    """The catalogue of methods: purpose, needs, status, and whether this CPU runs it for real."""
    if support:
        if words:
            raise UsageError(Problem("--support takes no pattern", got=" ".join(words)))
        _support(json)
        return
    if categories:
        _categories(json)
        return
    words = words or ["*"]
    if words[0] == "show":
        if len(words) != 2:
            raise UsageError(Problem("'netsuke methods show' takes one name", hint="netsuke methods lists them"))
        show(words[1], json)
    elif len(words) > 1:
        raise UsageError(Problem("one pattern at a time", got=" ".join(words), hint="quote it: 'bits/*'"))
    else:
        _table(words[0], json)


def show(name: str, json: Path | None) -> None:
    """Print one page on a method: idea, equations as implemented, options, cost, limits, paper."""
    from netsuke.pipeline import explain as page

    result = page(name)
    say(str(result))
    write_json(json, result.as_json())


def _support(json: Path | None) -> None:
    """The support matrix of the runtime on this CPU."""
    from dataclasses import asdict

    from netsuke.engine.support import support

    rows = support()
    isas = list(dict.fromkeys(isa for row in rows for isa in row.kernels))
    best = isas[0] if isas else "-"
    say(f"{'layer':26}{'weights':16}{'activations':21}{'bits in file':14}{'status':11}kernel ({best})")
    for row in rows:
        stored = "-" if row.stored is None else str(row.stored)
        kernel = next(iter(row.kernels.values()), "none: computed as float32")
        kernel += ", table decoded at load" if row.loaded else ""
        say(f"{row.layer:26}{row.weights:16}{row.activations:21}{stored:14}{row.status:11}{kernel}")
    say(f"\nThe same formats run on: {', '.join(isas)}. Activations of few bits stay in bytes.")
    document = [{**asdict(row), "status": row.status} for row in rows]
    write_json(json, {"schema": "netsuke.support/1", "isas": isas, "rows": document})


def _categories(json: Path | None) -> None:
    """The categories of a survey of quantization, each with its component, its switch and its test."""
    from netsuke.papers.survey import rows

    found = rows()
    widths = {key: max(len(r[key]) for r in found) for key in ("section", "category", "component")}
    for r in found:
        say("  ".join(r[key].ljust(widths[key]) for key in widths) + f"  {r['switch']}")
    say(f"\n{len(found)} categories of arXiv 2103.13630; tests: --json")
    write_json(json, {"schema": "netsuke.categories/1", "rows": found})


def _table(pattern: str, json: Path | None) -> None:
    from netsuke.core.method import methods as catalogue

    found = list(catalogue(pattern).values())
    width = max(len(m.name) for m in found)
    for m in found:
        real = "packed" if m.exports else "-"
        needs = f"   needs {', '.join(m.needs)}" if m.needs else ""
        say(f"{m.name:{width}}  {m.status:6}  {real:6}  {m.purpose}{needs}")
    say(f"\n{len(found)} of {len(catalogue())} methods. One page: netsuke methods show NAME")
    keys = ("name", "purpose", "paper", "needs", "touches", "exports", "status", "cost")
    write_json(json, {"schema": "netsuke.methods/1", "methods": [{k: getattr(m, k) for k in keys} for m in found]})


def register(app: typer.Typer) -> None:
    app.command()(methods)
