"""`netsuke claim list`, `netsuke claim run ID`, `netsuke claim run --area AREA`"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from netsuke.cli.common import DataRootOption, DebugOption, JsonOption, note, progress, say, write_json

app = typer.Typer(help="Executable claims: what a paper says, checked here.", no_args_is_help=True)


@app.command("list")
def list_claims(json: JsonOption = None, _debug: DebugOption = False) -> None:
    """Every claim: its last verdict, how long it takes, what data it needs."""
    from netsuke.papers.claim import claims
    from netsuke.papers.runner import recorded

    table = claims()
    width = max((len(name) for name in table), default=0)
    rows = []
    for claim in table.values():
        verdict = (recorded(claim.id) or {}).get("verdict", "not run")
        data = ", ".join(claim.data) or "ships"
        say(f"{claim.id:{width}}  {verdict:28}  {claim.minutes:4.1f} min  data: {data:14}  {claim.sentence}")
        rows.append({"id": claim.id, "paper": claim.paper, "verdict": verdict, "data": list(claim.data)})
    write_json(json, {"schema": "netsuke.claims/1", "claims": rows})


@app.command("run")
def run(
    claim_id: Annotated[str | None, typer.Argument(metavar="[ID]", help="See netsuke claim list.")] = None,
    area: Annotated[str | None, typer.Option("--area", help="Every claim of this area of the ledger.")] = None,
    data_root: DataRootOption = None,
    seeds: Annotated[int | None, typer.Option("--seeds", metavar="N", help="Run seeds 0 to N-1.", min=1)] = None,
    record: Annotated[
        bool, typer.Option("--record", help="Keep the result row in the ledger of this source checkout.")
    ] = False,
    json: JsonOption = None,
    _debug: DebugOption = False,
) -> None:
    """Run claims. Exit status 4 when an exact part of one fails."""
    from netsuke.core.errors import CheckFailed, Problem
    from netsuke.papers.claim import FAILS, require_data

    chosen = _choose(claim_id, area)
    for claim in chosen:
        require_data(claim, data_root)
    results = [_run_one(claim, data_root, tuple(range(seeds)) if seeds else None, record) for claim in chosen]
    write_json(json, {"schema": "netsuke.claim-results/1", "results": results})
    failed = [r for r in results if r["verdict"] == FAILS]
    if failed:
        raise CheckFailed(
            [
                Problem(f"exact part {name!r} does not hold", r["claim"], f"seeds {s}")
                for r in failed
                for name, s in r["broken"].items()
            ],
            f"{len(failed)} of {len(results)} claims fail",
        )


def _choose(claim_id: str | None, area: str | None) -> list[Any]:
    from netsuke.core.errors import Problem, UsageError
    from netsuke.papers import ledger
    from netsuke.papers.claim import claims, find_claim

    if (claim_id is None) == (area is None):
        raise UsageError("give one claim ID, or --area AREA (netsuke claim list)")
    if claim_id is not None:
        return [find_claim(claim_id)]
    ids = {row.id for row in ledger.rows(area=area)}
    found = [claim for claim in claims().values() if claim.paper in ids]
    if not found:
        raise UsageError(Problem("no claim in this area yet", got=str(area), hint="netsuke claim list"))
    return found


def _run_one(claim: Any, data_root: Path | None, seeds: tuple[int, ...] | None, keep: bool) -> dict[str, Any]:
    from netsuke.papers import page
    from netsuke.papers.runner import record, run_claim

    count = len(seeds or claim.seeds)
    note(f"{claim.id}: {claim.sentence} ({count} seeds, about {claim.minutes:g} min)")
    with progress() as bar:
        row = run_claim(
            claim,
            data_root=data_root,
            seeds=seeds,
            report=note,
            on_seed=lambda done, total: bar(claim.id, done / total),
        )
    for line in page.figures(row):
        say(line)
    if keep:
        note(f"recorded: {record(row)}")
    return row


def register(parent: typer.Typer) -> None:
    parent.add_typer(app, name="claim")
