"""`netsuke train`: quantizers and arithmetic by registry, resuming, and everything wrong at once."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from netsuke import engine
from netsuke.cli import common
from netsuke.cli.main import app
from netsuke.data import load_data
from netsuke.pipeline.training import TrainRequest, train_network, trainers


def call(*arguments: Any) -> int:
    return common.run(app, [str(a) for a in arguments])


@pytest.fixture(scope="module")
def digits(tmp_path_factory: pytest.TempPathFactory) -> Path:
    parts = list(load_data("digits:train").take(128, 0).batches(128))
    path = tmp_path_factory.mktemp("digits") / "few.npz"
    np.savez(path, x=parts[0][0], y=parts[0][1])
    return path


@pytest.mark.parametrize(
    ("method", "least"),
    [
        ("qat/lsq", 0.8),
        ("qat/lr2vq:length=2,entries=64,inner=2", 0.4),
        ("integer/bfloat16", 0.8),
        ("integer/shiftquant:l1_norm=false", 0.8),
        ("integer/shiftquant:weight_bits=8,activation_bits=8,gradient_bits=8,master_bits=12", 0.5),
        ("integer/dfp_int16", 0.8),
    ],
)
def test_a_network_is_trained_written_and_served(
    method: str, least: float, digits: Path, tmp_path: Path, capfd: Any
) -> None:
    out, report = tmp_path / "net.nsk", tmp_path / "net.json"
    common_options = ("--train", digits, "--eval", digits, "--epochs", 1, "--batch", 32, "--json", report)
    assert call("train", "models:digits_cnn", "-o", out, "--method", method, *common_options) == 0
    found = json.loads(report.read_text())
    assert found["schema"] == "netsuke.train/1"
    assert found["exact"] is (True if method.startswith("qat") else None)
    assert found["after"] > least
    assert len(found["losses"]) == 1
    assert engine.load(out)(np.zeros((1, 1, 8, 8), np.float32)).shape == (1, 10)
    assert not Path(f"{out}.checkpoint").exists()
    assert "top1" in capfd.readouterr().out


def test_an_interrupted_run_continues_and_gives_the_same_bytes(digits: Path, tmp_path: Path, monkeypatch: Any) -> None:
    options = ("--train", digits, "--epochs", 3, "--batch", 32)
    assert call("train", "models:digits_cnn", "-o", tmp_path / "whole.nsk", *options) == 0
    from netsuke.methods.qat import _training

    saved, real = [], _training._save

    def stop(*arguments: Any) -> None:
        real(*arguments)
        saved.append(1)
        if len(saved) == 1:
            raise KeyboardInterrupt

    monkeypatch.setattr(_training, "_save", stop)
    assert call("train", "models:digits_cnn", "-o", tmp_path / "cut.nsk", *options) == 130
    assert (tmp_path / "cut.nsk.checkpoint").is_file()
    assert call("train", "models:digits_cnn", "-o", tmp_path / "cut.nsk", *options) == 0
    assert len(saved) == 3
    assert not (tmp_path / "cut.nsk.checkpoint").exists()
    assert (tmp_path / "cut.nsk").read_bytes() == (tmp_path / "whole.nsk").read_bytes()


def test_wrong_requests_list_everything(digits: Path, tmp_path: Path, capfd: Any) -> None:
    options = ("--train", digits, "--method", "quantize/minmax", "--step", "qat/lsq", "--epochs", 0)
    assert call("train", "models:digits_cnn", "-o", tmp_path / "x.nsk", *options) == 2
    told = capfd.readouterr().err
    assert all(word in told for word in ("quantize/minmax", "qat/lsq", "epochs"))
    assert call("train", "net.onnx", "-o", tmp_path / "x.nsk", "--train", digits) == 2
    assert "PyTorch" in capfd.readouterr().err
    assert call("train", "models:digits_cnn", "-o", "x.bin", "--train", digits) == 2


def test_every_training_method_is_reachable_by_name() -> None:
    assert {"qat/lsq", "qat/pact", "qat/whitepaper", "qat/lr2vq", "integer/shiftquant", "integer/bfloat16"} <= set(
        trainers()
    )
    with pytest.raises(Exception, match="trained from Python"):
        train_network(TrainRequest("digits_cnn", "digits", method="qat/double_rounding"))


def test_settings_of_quantizers_are_refused_for_other_methods(digits: Path, tmp_path: Path, capfd: Any) -> None:
    options = ("--method", "integer/shiftquant", "--bits", "w6a6", "--minutes", 1, "--distill", 0.5)
    assert call("train", "models:digits_cnn", "-o", tmp_path / "net.nsk", "--train", digits, *options) == 2
    told = capfd.readouterr().err
    assert all(word in told for word in ("bits", "minutes", "distill", "weight_bits=6"))


def test_a_file_that_computes_in_float_says_so(digits: Path, tmp_path: Path, capfd: Any) -> None:
    options = ("--train", digits, "--epochs", 1, "--batch", 64, "--method", "integer/adapt:word=10")
    assert call("train", "models:digits_cnn", "-o", tmp_path / "net.nsk", *options) == 0
    assert "computes in float32" in capfd.readouterr().err
