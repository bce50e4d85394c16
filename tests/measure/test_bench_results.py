"""Files of bench/results: what another machine measured is never lost."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from types import ModuleType

import pytest

BENCH = Path(__file__).parents[2] / "bench"


@pytest.fixture
def rows(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    spec = importlib.util.spec_from_file_location("bench_rows", BENCH / "rows.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    monkeypatch.setattr(module, "RESULTS", tmp_path)
    return module


@pytest.mark.parametrize("keys", [(), ("network",)])
def test_rows_and_conditions_of_another_machine_stay(
    rows: ModuleType, monkeypatch: pytest.MonkeyPatch, keys: tuple[str, ...]
) -> None:
    for machine, ms in [("first 1.1", 1.0), ("second 2.2", 2.0), ("second 2.2", 3.0)]:
        monkeypatch.setattr(rows, "machine", lambda machine=machine: machine)
        path = rows.write("speed", f"took {ms}", [{"network": "resnet18", "ms": ms}], ["a note"], keys=keys)
    headers, found = rows._read(path)
    assert [(row["machine"], row["ms"]) for row in found] == [("first 1.1", "1.0"), ("second 2.2", "3.0")]
    assert {machine: lines[1] for machine, lines in headers.items()} == {
        "first 1.1": "# command: took 1.0",
        "second 2.2": "# command: took 3.0",
    }
    assert all(lines[-1] == "# note: a note" for lines in headers.values())


def test_every_result_in_the_repository_says_its_machine(rows: ModuleType) -> None:
    for path in sorted((BENCH / "results").glob("*.csv")):
        headers, found = rows._read(path)
        assert headers, path.name
        assert {row["machine"] for row in found} <= set(headers), path.name
