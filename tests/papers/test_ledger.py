"""The ledger: complete, honest, searchable."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from xml.etree import ElementTree as ET

import pytest

from netsuke.core.errors import FileError, UsageError
from netsuke.papers import catalogue, check, ledger
from netsuke.papers.search import Index, terms

ROOT = Path(__file__).parents[2]


def test_ledger_has_every_paper_once() -> None:
    table = ledger.rows()
    assert len(table) == len({r.id for r in table}) == 362
    assert all(r.title and r.claim and r.works_when for r in table)


def test_shipped_ledger_is_honest() -> None:
    assert check.check_ledger(ROOT) == []


def test_works_without_evidence_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    table = ledger.rows()
    planned = next(r for r in table if r.status == "planned")
    for change, message in (
        ({"status": "works"}, "without evidence"),
        ({"status": "works", "evidence": ("claim:no-such",)}, "claim that does not exist"),
        ({"evidence": ("test:tests/none.py::test_x",)}, "test that does not exist"),
        ({"evidence": ("hearsay",)}, "neither claim: nor test:"),
        ({"components": ("no/method",)}, "component that does not exist"),
        ({"status": "done"}, "unknown status"),
    ):
        changed = [replace(r, **change) if r.id == planned.id else r for r in table]
        monkeypatch.setattr(check, "rows", lambda changed=changed: changed)
        problems = check.check_ledger(ROOT)
        assert any(message in str(p) for p in problems), (change, [str(p) for p in problems])


def test_damaged_ledger_lists_every_bad_line() -> None:
    text = ledger.rows()[0].to_json() + '\n{"id": 1}\nnot json\n'
    with pytest.raises(FileError) as caught:
        ledger.parse(text)
    assert [p.where for p in caught.value.problems] == ["line 2", "line 3"]


def test_unknown_words_list_near_matches() -> None:
    with pytest.raises(UsageError, match="hawq-v3"):
        ledger.find("hawqv3")
    with pytest.raises(UsageError, match="quantize"):
        ledger.rows(area="quantise")
    with pytest.raises(UsageError) as caught:
        ledger.rows(area="quantise", status="wurks")
    assert len(caught.value.problems) == 2


@pytest.mark.parametrize(
    ("query", "expected"),
    [
        ("per-channel int8", "quant-whitepaper"),
        ("binary transformer attention", "bivit"),
        ("HAWQ-V3", "hawq-v3"),
        ("integer program bits", "adaquant-ip"),
    ],
)
def test_query_finds_the_paper(query: str, expected: str) -> None:
    found = [row.id for row, _ in Index(ledger.rows()).search(query)[:5]]
    assert expected in found


def test_scores_follow_bm25_by_hand() -> None:
    """Two documents, one query term: the formula worked out in plain arithmetic."""
    import math

    base = replace(ledger.rows()[0], id="", name="", claim="", works_when="")
    rows = [replace(base, title="pruning pruning network"), replace(base, title="network")]
    index = Index(rows)
    score = index.search("pruning")[0][1]
    idf = math.log(1 + (2 - 1 + 0.5) / (1 + 0.5))
    expected = idf * 2 * 2.5 / (2 + 1.5 * (1 - 0.75 + 0.75 * 3 / 2))
    assert score == pytest.approx(expected)


def test_similar_leaves_the_row_itself_out() -> None:
    row = ledger.find("bivit")
    near = [other.id for other, _ in Index(ledger.rows()).similar(row)]
    assert row.id not in near
    assert {"bibert", "bipft"} & set(near)


def test_terms_join_spellings() -> None:
    assert terms("quantisation") == terms("quantization") == terms("quantizing")
    assert terms("the of and") == []


def test_feed_is_atom_and_lists_done_rows_newest_first() -> None:
    rows = ledger.rows()[:4]
    rows = [
        replace(rows[0], status="works", since="2026-01-02"),
        replace(rows[1], status="works", since="2026-03-04"),
        replace(rows[2], status="partial", since="2026-05-06"),
        rows[3],
    ]
    root = ET.fromstring(catalogue.feed(rows).partition("\n")[2])
    ns = {"a": "http://www.w3.org/2005/Atom"}
    ids = [e.findtext("a:id", namespaces=ns) for e in root.findall("a:entry", ns)]
    assert ids == [f"urn:netsuke:papers:{rows[1].id}", f"urn:netsuke:papers:{rows[0].id}"]
    assert root.findtext("a:updated", namespaces=ns) == "2026-03-04T00:00:00Z"


def test_page_cannot_be_broken_out_of() -> None:
    row = replace(ledger.rows()[0], claim="</script><b>")
    assert "</script><b>" not in catalogue.page([row])


def test_catalogue_in_docs_is_current() -> None:
    for name, text in (("index.html", catalogue.page(ledger.rows())), ("feed.xml", catalogue.feed(ledger.rows()))):
        shipped = (ROOT / "docs" / "catalogue" / name).read_text(encoding="utf-8")
        assert shipped == text, "run: python -m netsuke.papers.catalogue docs/catalogue"
