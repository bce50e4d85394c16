"""Every category names a component and a test that exist, and a config that can be read."""

from __future__ import annotations

from pathlib import Path

import pytest

from netsuke.cli import common
from netsuke.cli.main import app
from netsuke.core.errors import UsageError
from netsuke.core.method import methods
from netsuke.papers.check import _importable, _test_exists
from netsuke.papers.survey import CATEGORIES, category, rows
from netsuke.pipeline.training import trainers

ROOT = Path(__file__).parents[2]


@pytest.mark.parametrize("name", [c.name for c in CATEGORIES])
def test_component_test_and_config_exist(name: str) -> None:
    found = category(name)
    assert found.component in methods() or _importable(found.component)
    assert _test_exists(ROOT, found.test), found.test
    if found.kind == "compress":
        assert {s.method for s in found.recipe().steps} <= set(methods())
    elif found.kind == "train":
        assert found.config[0].partition(":")[0] in trainers()
    else:
        assert found.config[0] in methods()


def test_the_table_is_printed_and_names_every_section(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    assert common.run(app, ["methods", "--categories", "--json", str(tmp_path / "t.json")]) == 0
    shown = capfd.readouterr().out
    assert all(c.name in shown for c in CATEGORIES)
    sections = {r["section"] for r in rows()}
    assert {"III-A", "III-B", "III-C", "III-D", "III-F", "III-G", "III-H", "IV-A", "IV-B", "IV-D", "IV-E"} <= sections
    with pytest.raises(UsageError, match="uniform"):
        category("unifrom")
