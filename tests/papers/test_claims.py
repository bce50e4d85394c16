"""Claims: judged as documented, resumable, never silently cached."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from netsuke.core.errors import FileError, UsageError
from netsuke.papers import claim as claim_module
from netsuke.papers.claim import FAILS, NOT_REPRODUCED, PASSES, Claim, Compare, Context, Outcome
from netsuke.papers.judge import compare, judge
from netsuke.papers.runner import RESULT_SCHEMA, run_claim


def make(measure, **changes) -> Claim:
    base = {"id": "t/x", "paper": "hawq-v3", "sentence": "s", "baseline": "b", "measure": measure}
    return Claim(**{**base, **changes})


def outcomes(new: list[float], old: list[float], exact: list[bool]) -> dict[int, Outcome]:
    return {
        i: Outcome({"equal": e}, {"new": n, "old": o}) for i, (n, o, e) in enumerate(zip(new, old, exact, strict=True))
    }


RULE = (Compare("new", "old", margin=-0.02),)


@pytest.mark.parametrize(
    ("new", "exact", "verdict"),
    [
        ([0.9, 0.91, 0.9], [True] * 3, PASSES),
        ([0.85, 0.86, 0.85], [True] * 3, NOT_REPRODUCED),
        ([0.9, 0.91, 0.9], [True, False, True], FAILS),
        ([float("nan")] * 3, [True] * 3, NOT_REPRODUCED),
    ],
)
def test_verdict(new: list[float], exact: list[bool], verdict: str) -> None:
    claim = make(lambda *_: Outcome(), compares=RULE)
    assert judge(claim, outcomes(new, [0.91, 0.91, 0.91], exact))["verdict"] == verdict


def test_comparison_is_the_paired_t_interval() -> None:
    from scipy import stats

    new, old = [0.80, 0.84, 0.83, 0.85], [0.79, 0.80, 0.82, 0.81]
    result = compare(Compare("new", "old"), list(outcomes(new, old, [True] * 4).values()))
    low, high = stats.ttest_rel(new, old).confidence_interval(0.95)
    assert result["interval"] == pytest.approx([low, high])
    assert result["holds"]


def test_a_clear_difference_is_larger_than_its_spread() -> None:
    old = [0.80, 0.80, 0.80]
    rule = Compare("new", "old", 0.01, clear=True)
    assert compare(rule, list(outcomes([0.85, 0.86, 0.87], old, [True] * 3).values()))["holds"]
    result = compare(rule, list(outcomes([0.80, 0.83, 0.86], old, [True] * 3).values()))
    assert result["mean"] > 0.01
    assert not result["holds"]
    assert result["rule"] == "mean(new - old) >= 0.01 + spread"


def test_missing_exact_part_of_one_seed_fails() -> None:
    runs = {0: Outcome({"equal": True}), 1: Outcome()}
    assert judge(make(lambda *_: Outcome()), runs)["broken"] == {"equal": [1]}


@pytest.fixture
def state(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("NETSUKE_CACHE", str(tmp_path))
    return tmp_path


def test_interrupted_run_resumes_and_says_so(state: Path) -> None:
    calls: list[int] = []

    def measure(_context: Context, seed: int) -> Outcome:
        if seed == 2 and len(calls) == 2:
            calls.append(-1)
            raise KeyboardInterrupt
        calls.append(seed)
        return Outcome({"ok": True}, {"value": float(seed)})

    claim = make(measure)
    with pytest.raises(KeyboardInterrupt):
        run_claim(claim)
    lines: list[str] = []
    row = run_claim(claim, report=lines.append)
    assert calls == [0, 1, -1, 2]
    assert "resuming" in lines[0]
    assert row["figures"]["value"]["values"] == [0.0, 1.0, 2.0]
    assert not list(state.rglob("*.json")), "a finished run leaves no state"


@pytest.mark.usefixtures("state")
def test_finished_run_is_measured_afresh() -> None:
    calls: list[int] = []
    claim = make(lambda _context, seed: (calls.append(seed), Outcome({"ok": True}))[1], seeds=(5,))
    run_claim(claim)
    run_claim(claim)
    assert calls == [5, 5]


@pytest.mark.usefixtures("state")
def test_result_row_has_what_a_reader_needs() -> None:
    claim = make(lambda _context, seed: Outcome({"ok": True}, {"v": 1.0 + seed}), compares=(Compare("v"),))
    row = json.loads(json.dumps(run_claim(claim)))
    assert row["schema"] == RESULT_SCHEMA
    assert row["verdict"] == PASSES
    assert row["seeds"] == [0, 1, 2]
    assert {"machine", "versions", "commit", "seconds", "date", "command", "figures", "comparisons"} <= set(row)


def test_missing_data_says_which_file_where(tmp_path: Path) -> None:
    claim = make(lambda *_: Outcome(), data=("cifar10",))
    with pytest.raises(FileError) as caught:
        run_claim(claim, data_root=tmp_path)
    assert "train_20k.npz" in str(caught.value)
    assert "--data-root" in str(caught.value)
    assert len(caught.value.problems) == 2


def test_unknown_claim_lists_near_ids() -> None:
    first = next(iter(claim_module.claims()))
    with pytest.raises(UsageError, match=first.split("/")[0]):
        claim_module.find_claim(first[:-1])


def test_every_claim_is_well_formed() -> None:
    from netsuke.core.method import methods
    from netsuke.papers.ledger import rows

    ids, registry = {r.id for r in rows()}, methods()
    for claim in claim_module.claims().values():
        assert claim.paper in ids
        assert claim.id.split("/")[0] == claim.paper
        assert set(claim.methods) <= set(registry)
        assert claim.seeds
        assert 0 < claim.minutes <= 45  # three seeds of a quarter of an hour
