"""Metrics against plain definitions."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from netsuke.core.errors import UsageError
from netsuke.verify.metrics import Score, Similarity, drop, kind_of_labels, require_finite, same_answer

seeds = st.integers(0, 2**31)
unhurried = settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.too_slow])


@unhurried
@given(seeds, st.integers(1, 4))
def test_similarity_does_not_depend_on_batches(seed: int, parts: int) -> None:
    rng = np.random.default_rng(seed)
    a = rng.standard_normal((8, 5)).astype(np.float32)
    b = a + 0.1 * rng.standard_normal((8, 5)).astype(np.float32)
    whole, split = Similarity(), Similarity()
    whole.add(a, b)
    for x, y in zip(np.array_split(a, parts), np.array_split(b, parts), strict=True):
        split.add(x, y)
    assert split.cosine == pytest.approx(whole.cosine)
    assert split.sqnr_db == pytest.approx(whole.sqnr_db)
    noise = (a - b).astype(np.float64)
    assert whole.sqnr_db == pytest.approx(10 * np.log10((a.astype(np.float64) ** 2).sum() / (noise**2).sum()), rel=1e-4)
    assert whole.relative == pytest.approx(10 ** (-whole.sqnr_db / 20))


def test_similarity_at_its_ends() -> None:
    equal, silent, lost = Similarity(), Similarity(), Similarity()
    equal.add(np.ones(3), np.ones(3))
    assert equal.sqnr_db == math.inf
    assert equal.cosine == pytest.approx(1)
    silent.add(np.zeros(3), np.zeros(3))
    assert silent.cosine == 1.0
    assert silent.relative == 0.0
    lost.add(np.zeros(3), np.ones(3))
    assert lost.sqnr_db == -math.inf
    assert lost.cosine == 0.0


@unhurried
@given(seeds, st.integers(2, 12))
def test_top1_and_top5_against_sorting(seed: int, classes: int) -> None:
    rng = np.random.default_rng(seed)
    output = rng.standard_normal((20, classes))
    labels = rng.integers(0, classes, 20)
    score = Score()
    score.add(output[:7], labels[:7])
    score.add(output[7:], labels[7:])
    values = score.values()
    ranks = (-output).argsort(axis=1)
    assert values["top1"] == pytest.approx((ranks[:, 0] == labels).mean())
    assert ("top5" in values) == (classes >= 10)
    if classes >= 10:
        assert values["top5"] == pytest.approx((ranks[:, :5] == labels[:, None]).any(axis=1).mean())


def test_maps_of_classes_count_every_position() -> None:
    output = np.zeros((2, 3, 4, 4))
    output[:, 1] = 1.0
    labels = np.ones((2, 4, 4), np.int64)
    labels[0, 0, 0] = 2
    score = Score()
    score.add(output, labels)
    assert score.values()["top1"] == pytest.approx(31 / 32)


def test_values_give_rmse_and_its_drop_points_the_right_way() -> None:
    before, after = Score(), Score()
    y = np.zeros((4, 2))
    before.add(y + 1.0, y)
    after.add(y + 2.0, y)
    assert before.values() == {"rmse": 1.0}
    assert drop(before.values(), after.values()) == {"rmse": 1.0}, "a larger error is a drop"
    assert drop({"top1": 0.9}, {"top1": 0.85})["top1"] == pytest.approx(0.05)


def test_labels_that_do_not_fit_are_refused() -> None:
    with pytest.raises(UsageError, match="labels do not fit"):
        kind_of_labels(np.zeros((3, 2), np.int64), np.zeros((3, 5)))
    with pytest.raises(UsageError, match="labels do not fit"):
        kind_of_labels(np.zeros(3, np.float32), np.zeros((3, 5)))


def test_agreement_needs_classes() -> None:
    assert same_answer(np.eye(3), np.eye(3)).all()
    assert same_answer(np.ones((3, 1)), np.ones((3, 1))).size == 0


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_values_that_are_not_finite_name_their_sample(bad: float) -> None:
    x = np.zeros((4, 2), np.float32)
    x[2, 1] = bad
    with pytest.raises(UsageError, match="sample 12"):
        require_finite(x, "the data", first_sample=10)
    require_finite(np.array([1, 2]), "the data")
