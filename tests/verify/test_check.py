"""`check` on a small compressed network: metrics, parity, exactness, batch sizes, and what it refuses."""

from __future__ import annotations

import copy
import json
from pathlib import Path

import numpy as np
import pytest

from netsuke.core.errors import CheckFailed, UsageError
from netsuke.data import Dataset
from netsuke.pipeline import compress
from netsuke.pipeline.small import Small
from netsuke.program import Program
from netsuke.verify import check, parity
from netsuke.verify.check import Check
from netsuke.verify.runners import open_runner, reference_runner, runtime_available
from tiny_network import CLASSES, inputs, labels, network, write_all


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    return write_all(tmp_path_factory.mktemp("check"))


@pytest.fixture(scope="module")
def small() -> Small:
    return compress(network(), calib=inputs(32), effort="fast", measure=False)


@pytest.fixture(scope="module")
def found(small: Small, files: dict[str, Path]) -> Check:
    return check(small, files["tiny.onnx"], str(files["eval.npz"]))


def test_metrics_and_keys(found: Check) -> None:
    assert found.labelled
    assert found.samples == 40
    assert found.float_metrics["top1"] == 1.0
    assert found.compressed_metrics["top1"] >= 0.9
    assert found.drop["top1"] == pytest.approx(1.0 - found.compressed_metrics["top1"])
    assert found.agreement == pytest.approx(found.compressed_metrics["top1"]), (
        "the labels are the float network's answers"
    )
    content = found.as_json()
    json.dumps(content, allow_nan=False)
    assert content["metrics"].keys() == {"float", "compressed", "drop"}
    assert content["data"]["count"] == 40
    found.raise_if_bad()


def test_layers_are_close_and_in_order(found: Check, small: Small) -> None:
    names = [p.layer for p in found.layers]
    assert {"conv1", "conv2", "conv3", "head"} <= set(names)
    order = [n.name for n in small.program.nodes]
    assert [order.index(n) for n in names] == sorted(order.index(n) for n in names)
    assert all(p.sqnr_db is None or p.sqnr_db > 20 for p in found.layers), "INT8 on a small network stays above 20 dB"
    assert found.first_departure is None


@pytest.mark.skipif(not runtime_available(), reason="the compiled runtime is not built")
def test_engine_is_exact_and_batches_agree(found: Check) -> None:
    assert found.exactness is not None
    assert found.exactness.exact, found.exactness.differing
    assert found.exactness.codes > 1000
    assert all(b["ok"] for b in found.batch_sizes)


def damaged(program: Program) -> Program:
    """The same program with one convolution's weights negated and the classes of the head in reverse."""
    other = copy.deepcopy(program)
    weights = {n.name: n.inputs[1] for n in other.nodes if n.name in ("conv2", "head")}
    other.constants[weights["conv2"]] = -other.constants[weights["conv2"]]
    other.constants[weights["head"]] = np.ascontiguousarray(other.constants[weights["head"]][::-1])
    return other


def test_a_damaged_layer_is_named(small: Small, files: dict[str, Path]) -> None:
    found = check(
        damaged(small.program), files["tiny.onnx"], str(files["eval.npz"]), limits={"top1": 0.01}, exact=False
    )
    assert found.first_departure is not None
    assert found.first_departure.layer == "conv2"
    with pytest.raises(CheckFailed, match="dropped more than allowed"):
        found.raise_if_bad()
    assert "conv2" in str(found)


def test_exactness_notices_a_wrong_code(small: Small) -> None:
    """The comparison itself can fail: a runner that runs another program is not equal to the reference."""
    wrong = open_runner(damaged(small.program))
    feeds = {"x": inputs(2, seed=5)}
    honest = parity.exactness(wrong, feeds)
    assert honest.exact, "the damaged program is still computed exactly"
    imposter = parity.Runner(wrong.run, "imposter", small.program)
    found = parity.exactness(imposter, feeds)
    assert not found.exact
    assert "r2" in found.differing


def test_without_labels_similarity_stands_in(small: Small, files: dict[str, Path]) -> None:
    found = check(small, files["tiny.onnx"], Dataset.from_arrays(inputs(10, seed=4)), layers=False, exact=False)
    assert not found.labelled
    assert found.float_metrics == {"cosine": 1.0, "agreement": 1.0}
    assert found.compressed_metrics["cosine"] > 0.99
    assert "no labels given" in str(found)


def test_own_metric(small: Small, files: dict[str, Path]) -> None:
    x = inputs(12, seed=6)
    y = labels(network(), x)

    def correct(predict: object) -> dict[str, float]:
        return {"mine": float((predict(x).argmax(axis=1) == y).mean())}  # type: ignore[operator]

    found = check(small, files["tiny.onnx"], Dataset.from_arrays(x), evaluate=correct, layers=False, exact=False)
    assert found.float_metrics["mine"] == 1.0
    assert "mine" in found.drop


def test_a_limit_on_a_metric_that_was_not_measured_fails(small: Small, files: dict[str, Path]) -> None:
    found = check(
        small, files["tiny.onnx"], Dataset.from_arrays(inputs(4)), limits={"top1": 0.5}, layers=False, exact=False
    )
    with pytest.raises(CheckFailed, match="no such metric"):
        found.raise_if_bad()


def test_data_that_are_not_finite_are_refused(small: Small, files: dict[str, Path]) -> None:
    x = inputs(6)
    x[3, 0, 0, 0] = np.nan
    with pytest.raises(UsageError, match="3"):
        check(small, files["tiny.onnx"], Dataset.from_arrays(x), layers=False, exact=False)


def test_labels_that_do_not_fit_are_refused(small: Small, files: dict[str, Path]) -> None:
    data = Dataset.from_arrays(inputs(4), np.zeros(4, np.float32))
    with pytest.raises(UsageError, match="labels do not fit"):
        check(small, files["tiny.onnx"], data, layers=False, exact=False)


def test_a_fixed_batch_is_respected() -> None:
    fixed = network(batch=4)
    made = compress(fixed, calib=inputs(16), effort="fast", measure=False)
    found = check(made, fixed, Dataset.from_arrays(inputs(10, seed=8)), layers=False, exact=False)
    assert found.samples == 8, "two whole batches of four"
    assert found.batch_sizes == [{"batch": 4, "ok": True, "result": "fixed in the file"}]
    with pytest.raises(UsageError, match="no sample was checked"):
        check(made, fixed, Dataset.from_arrays(inputs(3)), layers=False, exact=False)


def test_the_reference_runner_says_what_it_is(small: Small) -> None:
    runner = reference_runner(small.program)
    assert runner.engine is None
    assert "reference" in runner.name
    assert runner.outputs({"x": inputs(2)})[0].shape == (2, CLASSES)


def test_a_cube_is_compared_in_the_layout_it_has() -> None:
    x = np.random.default_rng(0).standard_normal((2, 4, 4, 4)).astype(np.float32)
    for other in (x, x.transpose(0, 2, 3, 1), x.transpose(0, 3, 1, 2)):
        found = parity.align(x, np.ascontiguousarray(other) + np.float32(0.01))
        assert found is not None
        assert np.abs(found - x).max() < 0.02
