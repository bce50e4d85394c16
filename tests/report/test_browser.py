"""The page in a real browser: clicking a column header sorts the rows."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from netsuke.pipeline import compress
from netsuke.report import report
from tiny_network import inputs, network

pytestmark = pytest.mark.browser
CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
DRIVER = shutil.which("chromedriver")


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    if not (CHROMIUM and DRIVER):
        if os.environ.get("NETSUKE_NO_SKIP"):
            pytest.fail("chromium and chromedriver are not installed, and nothing may be skipped here")
        pytest.skip("chromium and chromedriver are not installed")
    webdriver = pytest.importorskip("selenium.webdriver")
    options = webdriver.ChromeOptions()
    options.binary_location = CHROMIUM
    for argument in (
        "--headless=new",
        "--no-sandbox",
        "--disable-gpu",
        "--disable-dev-shm-usage",
        "--window-size=1280,1600",
    ):
        options.add_argument(argument)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
    driver = webdriver.Chrome(options=options, service=webdriver.ChromeService(executable_path=DRIVER))
    yield driver
    driver.quit()


@pytest.fixture(scope="module")
def page(browser: Any, tmp_path_factory: pytest.TempPathFactory) -> Any:
    folder = tmp_path_factory.mktemp("page")
    small = compress(network(), calib=inputs(16), effort="fast", measure=False)
    written: list[Path] = report(small).save(folder / "report.html")
    browser.get(written[0].as_uri())
    return browser


def column(page: Any, index: int) -> list[str]:
    script = "return [...document.querySelectorAll('#layers tbody tr')].map(r => r.cells[arguments[0]].dataset.value)"
    found: list[str] = page.execute_script(script, index)
    return found


def headers(page: Any) -> list[Any]:
    return list(page.find_elements("css selector", "#layers thead button"))


def index_of(page: Any, label: str) -> int:
    return [h.text.split(" ↑")[0].split(" ↓")[0] for h in headers(page)].index(label)


def test_a_click_on_a_header_sorts_the_rows(page: Any) -> None:
    at = index_of(page, "Bytes")
    before = column(page, at)
    assert len(before) == 5
    headers(page)[at].click()
    down = [float(v) for v in column(page, at)]
    assert down == sorted(map(float, before), reverse=True)
    assert [str(int(v)) for v in down] != before, "the click moved rows"
    headers(page)[at].click()
    assert [float(v) for v in column(page, at)] == sorted(map(float, before))
    headers(page)[at].click()
    assert column(page, at) == before, "the third click restores execution order"


def test_text_sorts_too_and_names_the_order(page: Any) -> None:
    at = index_of(page, "Layer")
    headers(page)[at].click()
    assert column(page, at) == sorted(column(page, at))
    head = page.find_elements("css selector", "#layers th")[at]
    assert head.get_attribute("aria-sort") == "ascending"


def test_search_hides_other_rows(page: Any) -> None:
    box = page.find_element("id", "find")
    box.send_keys("conv2")
    shown = page.execute_script(
        "return [...document.querySelectorAll('#layers tbody tr')].filter(r => !r.hidden).length"
    )
    assert shown == 1
    box.clear()
    box.send_keys(" ")


def test_the_theme_button_switches(page: Any) -> None:
    colour = "return getComputedStyle(document.body).backgroundColor"
    before = page.execute_script(colour)
    page.find_element("id", "theme").click()
    assert page.execute_script(colour) != before
    page.find_element("id", "theme").click()
    assert page.execute_script(colour) == before


def test_nothing_was_loaded_and_nothing_went_wrong(page: Any) -> None:
    assert page.execute_script("return performance.getEntriesByType('resource').length") == 0
    assert [e for e in page.get_log("browser") if e["level"] == "SEVERE"] == []
    wide = page.execute_script("return document.documentElement.scrollWidth <= document.documentElement.clientWidth")
    assert wide, "the page does not scroll sideways"
