"""The check that keeps the ledger honest.

It fails when a Method record has no row, a row names a component or evidence that does not exist, or a row says
`works` without evidence that passes. Evidence "claim:ID" passes when a recorded result row says so; "test:PATH::NAME"
when that test exists (CI runs it).
"""

from __future__ import annotations

import ast
import importlib
from collections.abc import Mapping, Sequence
from pathlib import Path

from netsuke.core.errors import Problem
from netsuke.core.method import Method, methods
from netsuke.papers.claim import NOT_REPRODUCED, PASSES, Claim, claims
from netsuke.papers.ledger import STATUSES, Row, rows
from netsuke.papers.runner import recorded

_DONE = ("works", "not reproduced at this scale")


def check_ledger(root: Path | None = None) -> list[Problem]:
    """All problems of the shipped ledger. `root` is a source checkout, needed to look tests up; without it they are
    not checked."""
    table, registry, known = rows(), methods(), claims()
    problems = _check_ids(table)
    ids = {row.id for row in table}
    problems += [
        Problem("a Method record without a row in the ledger", where=name, got=f"paper {method.paper!r}")
        for name, method in registry.items()
        if method.paper not in ids
    ]
    problems += [
        Problem("a claim of an unknown paper", where=claim.id, got=claim.paper)
        for claim in known.values()
        if claim.paper not in ids
    ]
    for row in table:
        problems += _check_components(row, registry) + _check_evidence(row, known, root)
    return problems


def _check_ids(table: Sequence[Row]) -> list[Problem]:
    problems = []
    if [(r.area, r.id) for r in table] != sorted((r.area, r.id) for r in table):
        problems.append(Problem("rows are not sorted by area and id", where="ledger.jsonl"))
    if len({r.id for r in table}) != len(table):
        problems.append(Problem("an id occurs twice", where="ledger.jsonl"))
    return problems


def _check_components(row: Row, registry: Mapping[str, Method]) -> list[Problem]:
    return [
        Problem("names a component that does not exist", where=row.id, got=name)
        for name in row.components
        if name not in registry and not _importable(name)
    ]


def _importable(name: str) -> bool:
    module_name, _, attribute = name.partition(":")
    if not module_name.startswith("netsuke."):
        return False
    try:
        module = importlib.import_module(module_name)
    except ImportError:
        return False
    return not attribute or hasattr(module, attribute)


def _check_evidence(row: Row, known: Mapping[str, Claim], root: Path | None) -> list[Problem]:
    problems = []
    if row.status not in STATUSES:
        problems.append(Problem("unknown status", where=row.id, got=row.status, allowed=", ".join(STATUSES)))
    if row.status != "planned" and not (row.implemented and row.since):
        problems.append(Problem(f"status {row.status!r} needs `implemented` and `since`", where=row.id))
    if row.status in _DONE and not row.evidence:
        problems.append(Problem(f"says {row.status!r} without evidence", where=row.id))
    verdicts = []
    for item in row.evidence:
        kind, _, name = item.partition(":")
        if kind == "claim":
            if name not in known:
                problems.append(Problem("names a claim that does not exist", where=row.id, got=name))
                continue
            result = recorded(name)
            verdicts.append(result["verdict"] if result else "never recorded")
        elif kind == "test":
            if root is not None and not _test_exists(root, name):
                problems.append(Problem("names a test that does not exist", where=row.id, got=name))
        else:
            problems.append(Problem("evidence is neither claim: nor test:", where=row.id, got=item))
    allowed = {"works": (PASSES,), "not reproduced at this scale": (PASSES, NOT_REPRODUCED)}.get(row.status)
    if allowed:
        problems += [
            Problem(f"says {row.status!r} but a claim does not pass", where=row.id, got=v)
            for v in verdicts
            if v not in allowed
        ]
    return problems


def _test_exists(root: Path, name: str) -> bool:
    file, _, function = name.partition("::")
    path = root / file
    if not path.is_file():
        return False
    if not function or path.suffix != ".py":
        return True
    tree = ast.parse(path.read_text(encoding="utf-8"))
    return any(isinstance(node, ast.FunctionDef) and node.name == function for node in ast.walk(tree))
