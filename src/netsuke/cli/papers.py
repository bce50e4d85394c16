"""`netsuke papers`, `netsuke papers show ID`, `netsuke papers similar ID`"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from typing import Annotated, Any

import typer

from netsuke.cli.common import DebugOption, JsonOption, say, write_json

_BARS = {"works": "█", "not reproduced at this scale": "▓", "partial": "▒", "planned": "░"}
_SHOWN = 40

WordsArgument = Annotated[
    list[str] | None,
    typer.Argument(metavar="[QUERY...]", help="Words to rank by; or 'show ID', 'similar ID', 'check'."),
]
AreaOption = Annotated[str | None, typer.Option("--area", help="Only this area.")]
StatusOption = Annotated[
    str | None, typer.Option("--status", help="planned, partial, works, 'not reproduced at this scale'.")
]


def papers(
    words: WordsArgument = None,
    area: AreaOption = None,
    status: StatusOption = None,
    json: JsonOption = None,
    _debug: DebugOption = False,
) -> None:
    """The ledger: every paper, what it claims, when we call it working, how far it is."""
    from netsuke.core.errors import UsageError

    words = words or []
    if words[:1] == ["show"] and len(words) == 2:
        _show(words[1], json)
    elif words[:1] == ["similar"] and len(words) == 2:
        _similar(words[1], json)
    elif words == ["check"]:
        _check(json)
    elif words[:1] in (["show"], ["similar"]):
        raise UsageError(f"netsuke papers {words[0]} takes one ID")
    else:
        _table(" ".join(words), area, status, json)


def _table(query: str, area: str | None, status: str | None, json: Any) -> None:
    from netsuke.papers import ledger
    from netsuke.papers.search import Index

    chosen = ledger.rows(area=area, status=status)
    if query:
        wanted = {r.id for r in chosen}
        chosen = [row for row, _ in Index(ledger.rows()).search(query) if row.id in wanted]
    shown = chosen if area or status or not query else chosen[:_SHOWN]
    _lines(shown)
    say()
    if not query and not area:
        _coverage()
    cut = f" (the best {len(shown)} shown)" if len(shown) < len(chosen) else ""
    say(f"{len(chosen)} of {len(ledger.rows())} papers{cut}. One page: netsuke papers show ID")
    write_json(json, {"schema": "netsuke.papers/1", "papers": [asdict(r) for r in chosen]})


def _lines(rows: Sequence[Any]) -> None:
    width = max((len(r.id) for r in rows), default=0)
    for row in rows:
        say(f"{_BARS[row.status]} {row.id:{width}}  {row.area:16}  {row.name}")


def _coverage() -> None:
    from netsuke.papers import ledger

    for area, counts in ledger.coverage().items():
        bar = "".join(_BARS[status] * counts[status] for status in _BARS)
        say(f"{area:17} {counts['works']:3} of {sum(counts.values()):3}  {bar}")
    say("  ".join(f"{mark} {status}" for status, mark in _BARS.items()))
    say()


def _show(row_id: str, json: Any) -> None:
    from netsuke.papers import ledger, page

    row = ledger.find(row_id)
    say(page.text(row))
    write_json(json, {"schema": "netsuke.paper/1", **page.as_json(row)})


def _similar(row_id: str, json: Any) -> None:
    from netsuke.papers import ledger
    from netsuke.papers.search import Index

    near = Index(ledger.rows()).similar(ledger.find(row_id))
    _lines([row for row, _ in near])
    rows = [{"score": round(score, 3), **asdict(row)} for row, score in near]
    write_json(json, {"schema": "netsuke.papers/1", "papers": rows})


def _check(json: Any) -> None:
    from pathlib import Path

    from netsuke.core.errors import CheckFailed
    from netsuke.papers import ledger
    from netsuke.papers.check import check_ledger

    here = Path.cwd()
    problems = check_ledger(here if (here / "tests").is_dir() else None)
    write_json(json, {"schema": "netsuke.papers-check/1", "problems": [str(p) for p in problems]})
    if problems:
        raise CheckFailed(problems, f"{len(problems)} problems in the ledger")
    say(f"{len(ledger.rows())} rows, every one honest")


def register(app: typer.Typer) -> None:
    app.command()(papers)
