"""Bit-level scaling: fits and shifts by hand, generators of several sizes, a sweep that goes on where it stopped."""

from __future__ import annotations

import json
import math
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from netsuke.core.errors import UsageError
from netsuke.methods.qat._weight_only import matrix_bits, stored, weight_only
from netsuke.models.pixel_lm import PixelLM, generate, tokens_of
from netsuke.pipeline import scaling
from netsuke.pipeline.scaling import Sweep
from netsuke.pipeline.scaling_generators import FAMILIES, Family
from netsuke.report.scaling import html, markdown


def test_a_power_law_is_found_again() -> None:
    bits = [1e4, 3e4, 2e5]
    found = scaling.fit(bits, [5 * b**-0.4 for b in bits])
    assert found["exponent"] == pytest.approx(0.4)
    assert found["scale"] == pytest.approx(math.log(5))
    assert found["r2"] == pytest.approx(1.0)
    assert scaling.fit(bits, [1.0, 3.0, 1.0])["r2"] < 0.5


def row(size: int, bits: int, training: str, distance: float) -> dict[str, object]:
    return {
        "family": "toy", "size": size, "bits": bits, "training": training, "distance": distance, "loss": distance,
        "total_bits": size * size * bits, "file_bytes": 100,
    }  # fmt: skip


def test_shifts_compare_the_cells_that_both_have() -> None:
    rows = [row(16, 2, "labels", 4.0), row(16, 2, "topkld", 2.0), row(32, 2, "topkld", 1.0), row(16, 3, "labels", 1.0)]
    found = scaling.shift(rows, "distance", "labels", "topkld")
    assert found == {
        "w2": pytest.approx(math.log(2)),
        "all": pytest.approx(math.log(2)),
        "least": pytest.approx(math.log(2)),
    }
    assert scaling.shift(rows, "distance", "ptq", "topkld") == {}


def test_best_points_are_those_that_fewer_bits_do_not_beat() -> None:
    rows = [row(16, 2, "ptq", 4.0), row(16, 8, "ptq", 3.0), row(48, 2, "ptq", 2.0), row(48, 8, "ptq", 2.5)]
    best = scaling.curves(rows)["toy, best"]
    assert [r["distance"] for r in best] == [4.0, 3.0, 2.0]


def test_pixels_one_by_one_are_those_of_the_whole_network() -> None:
    torch.manual_seed(0)
    network = PixelLM(16, 2, 2).eval()
    labels = torch.arange(4)
    images = generate(network, labels, torch.Generator().manual_seed(3))
    tokens, pixels = tokens_of(images * 0.5 + 0.5, labels)
    rng, again = torch.Generator().manual_seed(3), []
    with torch.no_grad():
        for step in range(64):
            chance = network(tokens[:, : step + 1])[:, -1].softmax(-1)
            again.append(torch.multinomial(chance, 1, generator=rng)[:, 0])
    assert torch.equal(torch.stack(again, 1), pixels)


def test_few_bits_count_codes_and_steps_and_serve_what_was_trained() -> None:
    torch.manual_seed(0)
    network = nn.Sequential(nn.Linear(32, 16), nn.ReLU(), nn.Linear(16, 4))
    assert matrix_bits(network) == 32 * (32 * 16 + 16 * 4)
    made = weight_only(network, 3)
    assert matrix_bits(made) == 3 * (32 * 16 + 16 * 4) + 32 * (16 + 4)
    x = torch.randn(5, 32)
    with torch.no_grad():
        assert torch.allclose(stored(made)(x), made(x), atol=1e-5)
        assert len(stored(made)[0].codes.unique()) <= 8  # type: ignore[index, operator, union-attr]
    made(x).sum().backward()
    assert made[0].quantizer.scale.grad is not None  # type: ignore[index, union-attr]


def test_a_cell_of_a_real_generator_runs_packed() -> None:
    family = FAMILIES["autoregressive"]
    torch.manual_seed(0)
    found = scaling._cell(family, weight_only(family.build(16).eval(), 2), 0)
    assert found["packed"] == 1.0
    assert found["apart"] < 1e-3
    assert 2.5 < found["loss"] < 3.2  # ln 17 = 2.83: nothing is trained
    assert np.isfinite(found["distance"])


def toy(trained: list[int]) -> Family:
    def build(width: int) -> nn.Module:
        return nn.Sequential(nn.Linear(8, width), nn.ReLU(), nn.Linear(width, 4))

    def train(network: nn.Module, _seed: int, _steps: int) -> None:
        trained.append(1)
        network.eval()

    def judge(network: nn.Module, _seed: int) -> dict[str, float]:
        return {"loss": 1.0 / len(network[0](torch.ones(1, 8))[0]), "distance": 0.5}  # type: ignore[operator]

    def tune(network: nn.Module, _teacher: nn.Module, _kind: str, _seed: int, _steps: int) -> None:
        network.eval()

    def inputs() -> dict[str, np.ndarray]:
        return {"input": np.ones((3, 8), np.float32)}

    return Family("toy", build, train, judge, inputs, {"input": "f32"}, tune)


def test_a_sweep_goes_on_from_its_finished_cells(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    trained: list[int] = []
    monkeypatch.setitem(FAMILIES, "toy", toy(trained))
    sweep = Sweep(families=("toy",), sizes=(16, 32), bits=(4,), tuned=(2,), steps=20, tune_steps=20)
    said: list[str] = []

    def stop(text: str) -> None:
        said.append(text)
        if len(said) == 3:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        scaling.run(sweep, state=tmp_path, say=stop)
    result = scaling.run(sweep, state=tmp_path, say=said.append)
    assert len(said) == len(result["rows"]) == 8  # no cell was made twice
    assert len(trained) == 2  # nor a network trained twice
    assert set(result["fits"]) == {"toy, float", "toy, w4 ptq", "toy, w2 labels", "toy, w2 topkld"}
    page, text = html(result), markdown(result)
    assert page.count("<path") == 2 * 4
    assert "topkld against labels" in text
    assert json.loads(page.split('id="data">')[1].split("</script>")[0])["schema"] == scaling.SCHEMA


def test_a_sweep_that_makes_no_sense_is_refused_with_every_reason() -> None:
    with pytest.raises(UsageError) as caught:
        Sweep(families=("gan",), sizes=(10,), bits=(1,), losses=("top",), steps=1)
    assert len(caught.value.problems) == 6
