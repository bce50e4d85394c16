"""The catalogue in a real browser: filters narrow, text finds, bars cover every area, nothing is fetched."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from netsuke.papers import catalogue, ledger

pytestmark = pytest.mark.browser


@pytest.fixture
def page(browser: Any, tmp_path: Path) -> Any:
    (tmp_path / "index.html").write_text(catalogue.page(ledger.rows()), encoding="utf-8")
    browser.get((tmp_path / "index.html").as_uri())
    return browser


def shown(page: Any) -> list[str]:
    return list(page.execute_script("return [...document.querySelectorAll('article:not([hidden])')].map(a => a.id)"))


def pick(page: Any, field: str, value: str) -> None:
    script = (
        "const e = document.getElementById(arguments[0]); e.value = arguments[1]; e.dispatchEvent(new Event('input'))"
    )
    page.execute_script(script, field, value)


def test_every_paper_is_shown_and_every_area_has_a_bar(page: Any) -> None:
    assert len(shown(page)) == 362
    bars = page.execute_script("return [...document.querySelectorAll('.area')].map(b => b.dataset.area)")
    assert bars == sorted({r.area for r in ledger.rows()})


@pytest.mark.parametrize(("field", "value"), [("area", "binary"), ("role", "eval"), ("status", "planned")])
def test_filter_by(page: Any, field: str, value: str) -> None:
    pick(page, field, value)
    assert set(shown(page)) == {r.id for r in ledger.rows() if getattr(r, field) == value}


def test_text_and_area_together(page: Any) -> None:
    pick(page, "text", "attention binary")
    everywhere = shown(page)
    assert "ecoformer" in everywhere
    pick(page, "area", "tokens")
    assert set(shown(page)) < set(everywhere)


def test_area_button_toggles(page: Any) -> None:
    page.execute_script("document.querySelector('.area[data-area=prune]').click()")
    assert {ledger.find(i).area for i in shown(page)} == {"prune"}
    page.execute_script("document.querySelector('.area[data-area=prune]').click()")
    assert len(shown(page)) == 362


def test_nothing_is_fetched(page: Any) -> None:
    resources = page.execute_script("return performance.getEntriesByType('resource').map(r => r.name)")
    assert [r for r in resources if not r.startswith("file:")] == []
