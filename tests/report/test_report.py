"""The content of a report, its schema, its page without a browser, and the viewable ONNX."""

from __future__ import annotations

import json
import re
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import onnx
import pytest

from netsuke.core.errors import FileError, UsageError
from netsuke.pipeline import compress
from netsuke.pipeline.small import Small
from netsuke.report import report
from netsuke.report.charts import Bar, growth_line, paired_bars
from netsuke.report.content import schema
from tiny_network import inputs, labels, network

jsonschema = pytest.importorskip("jsonschema")


@pytest.fixture(scope="module")
def small(tmp_path_factory: pytest.TempPathFactory) -> Small:
    x = inputs(24, seed=2)
    output = tmp_path_factory.mktemp("report") / "tiny.nsk"
    return compress(network(), calib=inputs(32), evaluate=(x, labels(network(), x)), output=output)


BENCH = {
    "schema": "netsuke.bench/1",
    "rows": [
        {"engine": e, "precision": p, "threads": 1, "batch": 1, "median_ms": ms, "p90_ms": ms, "reason": why}
        for e, p, ms, why in (
            ("netsuke", "int8", 1.0, ""),
            ("<other>", "f32", 4.0, ""),
            ("third", "bf16", None, "not here"),
        )
    ],
    "baselines": [],
    "verdict": {"valid": False, "reasons": ["spread"], "causes": ["load"]},
    "notes": [],
    "environment": {},
}


class Page(HTMLParser):
    """Collects tags, references and whether every element is closed."""

    VOID = ("meta", "link", "input", "br", "img", "hr")

    def __init__(self, text: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.references: list[str] = []
        self.rows = 0
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.references += [v or "" for k, v in attrs if k in ("src", "href", "data", "action", "srcset")]
        self.rows += tag == "tr"
        if tag not in self.VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:  # noqa: ARG002
        self.references += [v or "" for k, v in attrs if k in ("src", "href")]

    def handle_endtag(self, tag: str) -> None:
        assert self.open, f"</{tag}> closes nothing"
        assert self.open.pop() == tag


def test_content_follows_the_schema(small: Small) -> None:
    content = report(small, bench=BENCH).content
    jsonschema.Draft202012Validator.check_schema(schema())
    jsonschema.validate(content, schema())
    assert [n["label"] for n in content["numbers"]] == ["Size", "top1", "Latency", "Memory"]
    assert content["verdict"]["summary"] == small.summary()
    assert len(content["layers"]) == len(small.layers)
    assert content["growth"]


def test_the_schema_refuses_what_is_not_a_report(small: Small) -> None:
    content = report(small).content
    for change in ({"schema": "netsuke.report/2"}, {"numbers": []}, {"surprise": 1}):
        with pytest.raises(jsonschema.ValidationError):
            jsonschema.validate({**content, **change}, schema())


def test_the_page_is_whole_and_loads_nothing(small: Small) -> None:
    text = report(small, bench=BENCH).html()
    page = Page(text)
    assert page.open == []
    assert page.references == ["data:,"]
    assert not re.search(r"url\(|@import|https?://(?!json-schema)", text.split("<script")[0])
    assert page.rows > len(small.layers)
    assert "&lt;other&gt; f32" in text, "names are text, never markup"
    assert "third bf16: not here" in text
    assert "The machine was noisy" in text


def test_the_page_holds_its_own_data(small: Small) -> None:
    made = report(small)
    made.content["notes"].append("</script><script>alert(1)</script>")
    text = made.html()
    found = re.search(r"<script type=\"application/json\" id=\"data\">(.*?)</script>", text, re.DOTALL)
    assert found is not None
    assert json.loads(found[1]) == made.content
    assert "<script>alert" not in text


def test_saving_writes_page_json_and_view(small: Small, tmp_path: Path) -> None:
    written = report(small).save(tmp_path / "r.html")
    assert [p.name for p in written] == ["r.html", "r.json", "r.onnx"]
    jsonschema.validate(json.loads(written[1].read_text()), schema())
    view = onnx.load(str(written[2]))
    assert [n.op_type for n in view.graph.node] == [n.op for n in small.program.nodes]
    assert {n.domain for n in view.graph.node} == {"netsuke"}
    assert any("packed" in n.doc_string for n in view.graph.node)
    assert {i.name for i in view.graph.initializer} == set(small.program.constants)
    with pytest.raises(UsageError, match=r"\.html"):
        report(small).save(tmp_path / "r.pdf")
    with pytest.raises(FileError, match="cannot write"):
        report(small).save(tmp_path / "no" / "r.html")


def test_a_file_alone_is_reported_from_what_it_holds(small: Small) -> None:
    assert small.path is not None
    content = report(small.path).content
    jsonschema.validate(content, schema())
    assert any("is missing" in n for n in content["notes"])
    assert content["numbers"][1]["after"] is None
    assert content["verdict"]["state"] == "none"
    assert len(content["layers"]) == len(small.program.nodes)


def test_a_file_with_its_record_shows_the_same_as_the_object(small: Small) -> None:
    assert small.path is not None
    record = Path(f"{small.path}.json")
    record.write_text(json.dumps(small.as_json(), default=str))
    try:
        a, b = report(small.path).content, report(small).content
    finally:
        record.unlink()
    assert {k: v for k, v in a.items() if k != "created"} == {k: v for k, v in b.items() if k != "created"}


def test_a_file_of_another_kind_is_refused(small: Small, tmp_path: Path) -> None:
    other = tmp_path / "check.json"
    other.write_text(json.dumps(BENCH))
    with pytest.raises(FileError, match=r"netsuke\.check"):
        report(small, check=other)


def test_a_missed_contract_is_the_first_thing(small: Small) -> None:
    made = report(small)
    made.content["verdict"] |= {"state": "missed", "missed": ["top1 dropped by 3%"]}
    text = made.html()
    assert text.index("Contract missed") < text.index("top1 dropped by 3%") < text.index("<section")


def point(sqnr: float | None) -> dict[str, Any]:
    return {"layer": "a<b", "op": "qconv", "sqnr_db": sqnr, "cosine": 1.0}


def test_charts_escape_and_survive_their_edges() -> None:
    svg = growth_line([point(30.0), point(None), point(-5.0)], border=20.0)
    assert "a&lt;b: 30.0 dB" in svg
    assert svg.count("dot low") == 1
    assert "equal" in svg
    assert "<svg" not in growth_line([point(None)], border=20.0)
    assert "<svg" in growth_line([point(30.0)], border=20.0)
    bars = paired_bars([Bar("<x>", None, 0.0, "t"), Bar("y" * 60, 2.0, 1.0, "t")], "ms")
    assert "&lt;x&gt;" in bars
    assert "nan" not in bars
