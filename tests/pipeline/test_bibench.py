"""BiBench: its metrics by hand, its tasks, one small run."""

from __future__ import annotations

import json
import math

import pytest
import torch

from netsuke.core.errors import UsageError
from netsuke.pipeline import bibench, bibench_metrics
from netsuke.pipeline.bibench_tasks import CASES, corrupted
from netsuke.report.bibench import html, markdown


def test_metrics_by_hand() -> None:
    assert bibench_metrics.tasks({"a": [0.9], "b": [0.5]}) == pytest.approx(0.728, abs=5e-4)
    assert bibench_metrics.tasks({"a": [1.0, 0.8], "b": [0.5]}) == pytest.approx(math.sqrt((0.81 + 0.25) / 2))
    assert bibench_metrics.robustness({"n": 0.1, "b": 0.0}, {"n": 0.2, "b": -0.1}) == pytest.approx(
        math.sqrt((0.25 + 1) / 2)
    )
    assert bibench_metrics.training((1.0, 2.0), (0.02, 0.04)) == pytest.approx(0.5)
    assert bibench_metrics.complexity((64.0, 1.0), (32.0, 1.0)) == pytest.approx(math.sqrt((64**2 + 32**2) / 2))
    assert bibench_metrics.inference({"a": (8.0, 2.0), "b": (4.0, 2.0)}, (30.0, 1.0)) == pytest.approx(
        math.sqrt((9 + 900) / 2)
    )
    assert bibench_metrics.operations_per_product(1, 1) == 1 / 64
    assert bibench_metrics.operations_per_product(2, 8) == 1 / 4
    assert bibench_metrics.operations_per_product(32, 32) == 1


@pytest.mark.parametrize("case", CASES, ids=lambda c: f"{c.task}-{c.architecture}")
def test_every_task_has_samples_of_every_class_and_a_network_that_takes_them(case) -> None:
    x, y, xt, yt = case.data(1)
    again = case.data(1)
    assert all(bool((a == b).all()) for a, b in zip((x, y, xt, yt), again, strict=True))
    classes = int(y.max()) + 1
    assert set(yt.unique().tolist()) == set(range(classes))
    torch.manual_seed(0)
    assert case.network()(x[:8]).shape == (8, classes)
    modules = dict(case.network().named_modules())
    assert all(name in modules for name in case.keep)


def test_corruptions_change_images_and_keep_their_range() -> None:
    x = torch.rand(20, 1, 8, 8, generator=torch.Generator().manual_seed(0))
    found = corrupted(x)
    assert len(found) == 8
    for name, bad in found.items():
        assert bad.shape == x.shape, name
        assert not torch.equal(bad, x)
        assert float(bad.min()) >= -1e-6
        assert float(bad.max()) <= 1 + 1e-6


def test_a_small_run_fills_the_table_and_the_page() -> None:
    result = bibench.run(["bnn", "reste"], steps=2)
    assert set(result["binarizers"]) == {"bnn", "reste"}
    assert result["left_out"] == {}
    row = result["binarizers"]["bnn"]
    assert row["one_bit_layers"] == 3
    assert row["bytes"] < result["float"]["bytes"] / 8
    assert row["operations"] < result["float"]["operations"] / 20
    assert all(after > 0 for _, after in row["ms"].values())
    assert json.loads(json.dumps(result)) == result
    text, page = markdown(result), html(result)
    for name in result["binarizers"]:
        assert f"| {name} |" in text
        assert name in page
    assert "http" not in page.replace("http://www.w3.org", "")


def test_wrong_names_and_steps_are_refused() -> None:
    with pytest.raises(UsageError, match="did you mean"):
        bibench.run(["bmn"])
    with pytest.raises(UsageError, match="steps"):
        bibench.run(["bnn"], steps=0)
