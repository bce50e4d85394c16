"""Rows, ratios, tables and the comparison of two results."""

from __future__ import annotations

import csv
import io
import json
from pathlib import Path
from typing import Any

import pytest

from netsuke.core.errors import FileError, UsageError
from netsuke.measure import compare, verdict
from netsuke.measure.environment import Disturbance, capture
from netsuke.measure.result import Result, Settings, render
from netsuke.measure.rows import Row, add_ratios
from netsuke.measure.stats import summarize


def row(engine: str, precision: str, ms: float, threads: int = 1, spread: float = 0.01) -> Row:
    rounds = [[ms * (1 + spread * ((i * 7 + j * 3) % 5 - 2) / 2) for j in range(6)] for i in range(10)]
    made = Row(engine, precision, threads, 1, rounds_ms=rounds, summary=summarize(rounds), busy_cores=1.0)
    made.effective_threads = threads
    return made


def result(*rows: Row) -> Result:
    made = list(rows)
    settings = Settings((1,), (1,), ("netsuke",), ("f32",), 1.0, False, False, 0)
    return Result(made, add_ratios(made), settings, capture(), verdict.judge(made, Disturbance()))


def test_ratios_are_speeds_against_the_best_competitor() -> None:
    rows = [
        row("netsuke", "int8", 1.0),
        row("a", "int8", 1.2),
        row("b", "int8", 2.0),
        row("a", "f32", 4.0),
        row("b", "f32", 3.0),
    ]
    baselines = add_ratios(rows)
    assert baselines == [{"threads": 1, "batch": 1, "best_float": "b f32", "best_int8": "a int8"}]
    assert rows[0].to_best_float is not None
    assert rows[0].to_best_float.value == pytest.approx(3.0)
    assert rows[0].to_best_int8 is not None
    assert rows[0].to_best_int8.value == pytest.approx(1.2)
    assert rows[4].to_best_float is not None
    assert not rows[4].to_best_float.differs


def test_without_competitors_our_own_float_is_the_baseline() -> None:
    rows = [row("netsuke", "int8", 1.0), row("netsuke", "f32", 3.0)]
    assert add_ratios(rows)[0]["best_float"] == "netsuke f32"


def test_thread_counts_are_not_mixed() -> None:
    rows = [
        row("netsuke", "int8", 1.0),
        row("a", "f32", 4.0),
        row("netsuke", "int8", 1.0, threads=2),
        row("a", "f32", 2.0, threads=2),
    ]
    add_ratios(rows)
    assert [round(r.to_best_float.value, 6) for r in rows if r.to_best_float] == [4.0, 1.0, 2.0, 1.0]


def test_json_has_the_promised_keys() -> None:
    content = result(row("netsuke", "int8", 1.0), row("a", "f32", 4.0)).as_json()
    json.dumps(content, allow_nan=False)
    for r in content["rows"]:
        assert {
            "engine",
            "precision",
            "threads",
            "median_ms",
            "p90_ms",
            "ratio_to_best_float",
            "ratio_to_best_int8",
        } <= r.keys()
    assert content["rows"][0]["engine"].startswith("netsuke")
    assert content["schema"] == "netsuke.bench/1"


def test_formats_agree() -> None:
    made = result(
        row("netsuke", "int8", 1.0),
        row("a", "f32", 4.0),
        Row("b", "f32", 1, 1, status="missing", reason="not installed"),
    )
    records = list(csv.DictReader(io.StringIO(render(made, "csv"))))
    lines = [json.loads(line) for line in render(made, "jsonl").splitlines()]
    whole = json.loads(render(made, "json"))
    assert [r["engine"] for r in records] == [r["engine"] for r in lines] == [r["engine"] for r in whole["rows"]]
    assert float(records[0]["median_ms"]) == lines[0]["median_ms"] == whole["rows"][0]["median_ms"]
    text = render(made, "md")
    assert "4.00x" in text
    assert "b f32: not installed" in text
    with pytest.raises(UsageError, match="did you mean json"):
        render(made, "jsn")


def test_verdict_names_reason_and_cause() -> None:
    quiet = verdict.judge([row("netsuke", "int8", 1.0)], Disturbance())
    assert quiet["valid"]
    assert not quiet["causes"]
    noisy = verdict.judge([row("netsuke", "int8", 1.0, spread=0.8)], Disturbance(others=1.3, stolen=0.2))
    assert not noisy["valid"]
    assert "spread" in noisy["reasons"][0]
    assert any("other processes used 1.3 cores" in c for c in noisy["causes"])
    assert any("hypervisor" in c for c in noisy["causes"])
    unknown = verdict.judge([row("netsuke", "int8", 1.0, spread=0.8)], Disturbance())
    assert unknown["causes"], "a noisy verdict always says something about the cause"


def write(path: Path, made: Result) -> Path:
    path.write_text(json.dumps(made.as_json()))
    return path


def test_compare_finds_what_became_slower(tmp_path: Path) -> None:
    old = compare.read(
        write(tmp_path / "old.json", result(row("netsuke", "int8", 1.0), row("a", "f32", 4.0), row("c", "f32", 1.0)))
    )
    new = compare.read(
        write(tmp_path / "new.json", result(row("netsuke", "int8", 1.1), row("a", "f32", 9.0), row("d", "f32", 1.0)))
    )
    found = compare.compare(old, new)
    assert [c.label for c in found.slower(0.03)] == ["netsuke int8"], "only our rows count, and only beyond the limit"
    assert not found.slower(0.2)
    assert found.only_old == ["c f32 1 threads batch 1"]
    assert found.only_new == ["d f32 1 threads batch 1"]
    assert not compare.compare(old, old).slower(0.0)


@pytest.mark.parametrize("text", ["slower", "slower:x%", "faster:3%", "slower:3"])
def test_limit_that_cannot_be_read(text: str) -> None:
    with pytest.raises(UsageError, match="slower:3%"):
        compare.parse_limit(text)


def test_limit() -> None:
    assert compare.parse_limit("slower:2.5%") == pytest.approx(0.025)


@pytest.mark.parametrize(
    ("content", "message"), [("{", "not JSON"), ("{}", "not a result"), ("[1]", "not a result"), (None, "cannot read")]
)
def test_result_file_that_is_none(tmp_path: Path, content: Any, message: str) -> None:
    path = tmp_path / "r.json"
    if content is not None:
        path.write_text(content)
    with pytest.raises(FileError, match=message):
        compare.read(path)


def test_other_conditions_are_a_warning() -> None:
    a, b = result(row("netsuke", "int8", 1.0)).as_json(), result(row("netsuke", "int8", 1.0)).as_json()
    b["environment"] = {**b["environment"], "forced_isa": "portable"}
    assert any("forced ISA" in w for w in compare.compare(a, b).warnings)
