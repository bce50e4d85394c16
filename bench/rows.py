"""Result rows with their conditions: one CSV a benchmark in bench/results, a header of conditions, one line a row."""

from __future__ import annotations

import csv
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from netsuke.measure import environment

RESULTS = Path(__file__).parent / "results"


def conditions(command: str) -> dict[str, str]:
    """Machine, versions, commit and the command that gives the figures."""
    facts = environment.capture()
    cpu = facts["cpu"]
    return {
        "command": command,
        "date": facts["time"],
        "machine": f"{cpu['name']} family {cpu['family']} model {cpu['model']}, {cpu['cores']} cores",
        "features": " ".join(cpu["features"]),
        "system": facts["os"],
        "load average": str(facts["load_average"]),
        "versions": ", ".join(f"{k} {v}" for k, v in sorted(facts["versions"].items())),
        "commit": facts["commit"],
    }


def write(
    name: str,
    command: str,
    rows: Sequence[Mapping[str, Any]],
    notes: Sequence[str] = (),
    *,
    keys: Sequence[str] = (),
) -> Path:
    """Write `rows` to bench/results/NAME.csv below comment lines with the conditions; returns the path.

    keys  columns that name a row: rows of an earlier part of the same benchmark stay, unless this one has them anew.
          Every row then says the commit it was measured at.
    """
    RESULTS.mkdir(exist_ok=True)
    path = RESULTS / f"{name}.csv"
    if keys:
        commit = environment.capture()["commit"]
        rows = [{**row, "commit": commit} for row in rows]
        fresh = {tuple(str(row[k]) for k in keys) for row in rows}
        rows = [row for row in _read(path) if tuple(str(row.get(k)) for k in keys) not in fresh] + rows
        rows.sort(key=lambda row: tuple(str(row[k]) for k in keys))
    columns = list(dict.fromkeys(key for row in rows for key in row))
    with path.open("w", newline="", encoding="utf-8") as file:
        for key, value in conditions(command).items():
            file.write(f"# {key}: {value}\n")
        for line in notes:
            file.write(f"# note: {line}\n")
        writer = csv.DictWriter(file, columns, lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)
    return path


def _read(path: Path) -> list[dict[str, Any]]:
    if not path.exists():
        return []
    lines = path.read_text(encoding="utf-8").splitlines()
    return list(csv.DictReader(line for line in lines if not line.startswith("#")))
