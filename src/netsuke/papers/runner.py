"""Running claims: seed by seed, resumable after an interrupt, one result row at the end.

An unfinished run keeps its finished seeds in a state file; the next run of the same claim, code, seeds and data says
so and goes on from there. The state file is deleted when the run completes, so a completed claim is always measured
afresh.
"""

from __future__ import annotations

import hashlib
import inspect
import json
import os
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from importlib import resources
from pathlib import Path
from typing import Any

from netsuke import __version__
from netsuke.core.errors import FileError, Problem
from netsuke.measure import environment
from netsuke.papers.claim import Claim, Outcome, require_data
from netsuke.papers.judge import judge

RESULT_SCHEMA = 1


@dataclass
class RunContext:
    """The `Context` a claim sees: where data is, and a line of progress."""

    data_root: Path | None
    report: Callable[[str], None]

    def progress(self, text: str) -> None:
        self.report(text)


def state_folder() -> Path:
    """Where unfinished runs are kept: NETSUKE_CACHE, or the user's cache directory."""
    base = os.environ.get("NETSUKE_CACHE") or os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(base) / "netsuke" / "claims"


def results_folder() -> Path:
    """Where recorded result rows live: inside the package, one JSON file a claim."""
    return Path(str(resources.files("netsuke.papers"))) / "results"


def file_name(claim_id: str) -> str:
    return claim_id.replace("/", "--") + ".json"


def _fingerprint(claim: Claim, data_root: Path | None) -> str:
    """Changes when the claim's code, the package version or the data root changes."""
    source = Path(inspect.getsourcefile(claim.measure) or "").read_bytes()
    parts = (source, __version__.encode(), str(data_root and data_root.resolve()).encode())
    return hashlib.sha256(b"\0".join(parts)).hexdigest()


def _load_state(path: Path, fingerprint: str) -> dict[int, tuple[Outcome, float]]:
    if not path.is_file():
        return {}
    try:
        state = json.loads(path.read_text())
        if state["fingerprint"] != fingerprint:
            return {}
        return {int(seed): (Outcome(**item["outcome"]), item["seconds"]) for seed, item in state["seeds"].items()}
    except (KeyError, TypeError, ValueError):
        return {}  # a torn or foreign state file: nothing finished is known, every seed runs again


def _save_state(path: Path, fingerprint: str, done: dict[int, tuple[Outcome, float]]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    seeds = {str(seed): {"outcome": asdict(outcome), "seconds": seconds} for seed, (outcome, seconds) in done.items()}
    temporary = path.with_suffix(".tmp")
    temporary.write_text(json.dumps({"fingerprint": fingerprint, "seeds": seeds}))
    temporary.replace(path)


def run_claim(
    claim: Claim,
    *,
    data_root: Path | None = None,
    seeds: tuple[int, ...] | None = None,
    report: Callable[[str], None] = lambda _text: None,
    on_seed: Callable[[int, int], None] = lambda _done, _total: None,
) -> dict[str, Any]:
    """Run every seed that is not done yet and return the result row (see `result_row`).

    `report` receives lines of progress, `on_seed(done, total)` moves a progress bar. An interrupt keeps finished seeds.
    """
    require_data(claim, data_root)
    wanted = seeds or claim.seeds
    fingerprint = _fingerprint(claim, data_root)
    state = state_folder() / file_name(claim.id)
    done = {s: item for s, item in _load_state(state, fingerprint).items() if s in wanted}
    if done:
        report(f"{claim.id}: resuming an interrupted run, seeds {', '.join(map(str, sorted(done)))} are done")
    context = RunContext(data_root, report)
    on_seed(len(done), len(wanted))
    for seed in wanted:
        if seed in done:
            continue
        started = time.perf_counter()
        outcome = claim.measure(context, seed)
        done[seed] = (outcome, time.perf_counter() - started)
        _save_state(state, fingerprint, done)
        on_seed(len(done), len(wanted))
    row = result_row(claim, {seed: done[seed][0] for seed in wanted}, sum(done[seed][1] for seed in wanted))
    state.unlink(missing_ok=True)
    return row


def result_row(claim: Claim, outcomes: dict[int, Outcome], seconds: float) -> dict[str, Any]:
    """Everything a reader needs to believe or repeat a result."""
    return {
        "schema": RESULT_SCHEMA,
        "claim": claim.id,
        "paper": claim.paper,
        "sentence": claim.sentence,
        "baseline": claim.baseline,
        **judge(claim, outcomes),
        "seeds": list(outcomes),
        "seconds": round(seconds, 2),
        "date": datetime.now(UTC).date().isoformat(),
        "machine": {"cpu": environment.cpu()["name"], "cores": environment.usable_cores()},
        "versions": environment.versions(),
        "commit": environment.commit(),
        "command": f"netsuke claim run {claim.id}" + (" --data-root DIR" if claim.data else ""),
    }


def record(row: dict[str, Any]) -> Path:
    """Write the row into the package's `results/` (a source checkout); FileError when that folder cannot be written."""
    path = results_folder() / file_name(row["claim"])
    try:
        path.write_text(json.dumps(row, indent=1, sort_keys=True) + "\n", encoding="utf-8")
    except OSError as error:
        raise FileError(
            Problem("cannot record the result", where=str(path), got=str(error), hint="use --json FILE")
        ) from error
    return path


def recorded(claim_id: str) -> dict[str, Any] | None:
    """The recorded result row of a claim, or None."""
    path = results_folder() / file_name(claim_id)
    return json.loads(path.read_text(encoding="utf-8")) if path.is_file() else None


def default_data_root() -> Path | None:
    """NETSUKE_DATA as a path, if it is set."""
    value = os.environ.get("NETSUKE_DATA")
    return Path(value) if value else None
