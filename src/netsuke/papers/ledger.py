"""The table of papers: one JSON line a paper in `ledger.jsonl`, sorted by area and id."""

from __future__ import annotations

import functools
import json
from collections.abc import Iterable
from dataclasses import asdict, dataclass, fields
from importlib import resources
from pathlib import Path
from typing import Any

from netsuke.core.errors import FileError, Problem, UsageError, near

STATUSES = ("planned", "partial", "works", "not reproduced at this scale")


@dataclass(frozen=True)
class Row:
    """One paper.

    id, name, title       short id, usual name, title of the paper
    role, area, tier      what kind of thing it is, where it belongs, 1 (core) to 3 (peripheral)
    claim, works_when     what the paper claims in our words; the sentence that decides when the row works
    components            what was built: Method names ("bits/hawq"), or dotted names ("netsuke.models.resnet:resnet18")
    implemented, left_out one sentence each
    evidence              ids of claims ("claim:ID") or tests ("test:tests/x.py::name")
    status, since         one of STATUSES; the day it reached it (ISO date, empty while planned)
    """

    id: str
    name: str
    title: str
    role: str
    area: str
    tier: int
    claim: str
    works_when: str
    components: tuple[str, ...] = ()
    implemented: str = ""
    left_out: str = ""
    evidence: tuple[str, ...] = ()
    status: str = "planned"
    since: str = ""

    @property
    def text(self) -> str:
        """What a query is matched against."""
        return " ".join((self.id.replace("-", " "), self.name, self.title, self.claim, self.works_when))

    def to_json(self) -> str:
        return json.dumps(asdict(self), ensure_ascii=False)


def ledger_path() -> Path:
    """The file of the ledger inside the package."""
    return Path(str(resources.files("netsuke.papers"))) / "ledger.jsonl"


def parse(text: str) -> list[Row]:
    """Rows of a ledger text; FileError listing every line that is not a row."""
    names = {field.name for field in fields(Row)}
    rows: list[Row] = []
    problems: list[Problem] = []
    for number, line in enumerate(text.splitlines(), 1):
        try:
            data = json.loads(line)
        except json.JSONDecodeError as error:
            problems.append(Problem("not a JSON object", where=f"line {number}", got=str(error)))
            continue
        if set(data) != names:
            wrong = set(data) ^ names
            problems.append(Problem("wrong keys", where=f"line {number}", got=", ".join(sorted(wrong))))
            continue
        values: dict[str, Any] = {k: tuple(v) if isinstance(v, list) else v for k, v in data.items()}
        rows.append(Row(**values))
    if problems:
        raise FileError(problems, "the ledger is damaged")
    return rows


@functools.cache
def _load() -> tuple[Row, ...]:
    return tuple(parse(ledger_path().read_text(encoding="utf-8")))


def rows(*, area: str | None = None, status: str | None = None, role: str | None = None) -> list[Row]:
    """Rows that match every filter given; an unknown value is a UsageError with near names."""
    table = _load()
    problems = []
    for label, value, known in (
        ("area", area, {r.area for r in table}),
        ("status", status, set(STATUSES)),
        ("role", role, {r.role for r in table}),
    ):
        if value is not None and value not in known:
            problems.append(Problem(f"unknown {label}", got=value, allowed=near(value, known, 6)))
    if problems:
        raise UsageError(problems)
    return [
        r
        for r in table
        if (area is None or r.area == area)
        and (status is None or r.status == status)
        and (role is None or r.role == role)
    ]


def find(row_id: str) -> Row:
    """The row of that id; UsageError with near ids when there is none."""
    table = {r.id: r for r in _load()}
    if row_id not in table:
        raise UsageError(Problem("unknown paper", got=row_id, allowed=near(row_id, table), hint="netsuke papers QUERY"))
    return table[row_id]


def coverage(table: Iterable[Row] | None = None) -> dict[str, dict[str, int]]:
    """Count of rows by area and status, areas sorted, every status present."""
    result: dict[str, dict[str, int]] = {}
    for row in sorted(table if table is not None else _load(), key=lambda r: r.area):
        result.setdefault(row.area, dict.fromkeys(STATUSES, 0))[row.status] += 1
    return result
