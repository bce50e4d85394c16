"""Every example runs, in a folder of its own; those that train for one epoch."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
from tests import programs

FOLDER = Path(__file__).parents[1] / "examples"
EXAMPLES = sorted(p.stem for p in FOLDER.glob("*.py"))


def test_there_are_examples() -> None:
    assert len(EXAMPLES) == 5


@pytest.mark.slow
@pytest.mark.parametrize("name", EXAMPLES)
def test_example_runs(name: str, tmp_path: Path) -> None:
    quick = f"import {name} as e; e.main(**({{'epochs': 1}} if {name!r}.startswith('train') else {{}}))"
    printed = programs.run([sys.executable, "-c", quick], tmp_path, PYTHONPATH=str(FOLDER))
    assert "equal to the reference bit for bit" in printed
