"""Result rows with their conditions: one CSV a benchmark in bench/results, a header a machine, one line a row."""

from __future__ import annotations

import csv
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from netsuke.measure import environment

RESULTS = Path(__file__).parent / "results"


def machine() -> str:
    """This machine in short, e.g. "AMD EPYC 26.2" (family 26, model 2): rows of another one are never replaced."""
    cpu = environment.capture()["cpu"]
    return f"{cpu['name']} {cpu['family']}.{cpu['model']}"


def conditions(command: str) -> list[str]:
    """Comment lines of one machine: what gave the figures, and where."""
    facts = environment.capture()
    cpu = facts["cpu"]
    found = {
        "machine": machine(),
        "command": command,
        "date": facts["time"],
        "cores": str(cpu["cores"]),
        "features": " ".join(cpu["features"]),
        "system": facts["os"],
        "load average": str(facts["load_average"]),
        "versions": ", ".join(f"{k} {v}" for k, v in sorted(facts["versions"].items())),
        "commit": facts["commit"],
    }
    return [f"# {key}: {value}" for key, value in found.items()]


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
          Every row then says the commit it was measured at. Without keys all earlier rows of this machine go.
    Rows and conditions measured on other machines always stay; the column `machine` says which is which.
    """
    RESULTS.mkdir(exist_ok=True)
    path = RESULTS / f"{name}.csv"
    here = machine()
    extra = {"commit": environment.capture()["commit"]} if keys else {}
    rows = [{"machine": here, **row, **extra} for row in rows]
    keys = ("machine", *keys)
    fresh = {tuple(str(row[k]) for k in keys) for row in rows}
    headers, earlier = _read(path)
    rows = [row for row in earlier if tuple(str(row.get(k)) for k in keys) not in fresh] + rows
    if len(keys) > 1:
        rows.sort(key=lambda row: tuple(str(row[k]) for k in keys))
    headers[here] = conditions(command) + [f"# note: {line}" for line in notes]
    columns = list(dict.fromkeys(key for row in rows for key in row))
    with path.open("w", newline="", encoding="utf-8") as file:
        for _, lines in sorted(headers.items()):
            file.writelines(f"{line}\n" for line in lines)
        writer = csv.DictWriter(file, columns, lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)
    return path


def _read(path: Path) -> tuple[dict[str, list[str]], list[dict[str, Any]]]:
    """Comment lines of every machine, by machine, and the rows."""
    if not path.exists():
        return {}, []
    lines = path.read_text(encoding="utf-8").splitlines()
    headers: dict[str, list[str]] = {}
    block: list[str] = []
    for line in lines:
        if line.startswith("# machine: "):
            headers[line.removeprefix("# machine: ")] = block = []
        if line.startswith("#"):
            block.append(line)
    return headers, list(csv.DictReader(line for line in lines if not line.startswith("#")))
