"""netsuke.train: learning, resuming bit for bit, refusing what cannot continue."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

import netsuke
from netsuke.core.errors import FileError, UsageError
from netsuke.pipeline.train import TrainResult

OPTIONS = {"keep_float": "0", "weight_bits": 6, "activation_bits": 6, "gradient_bits": 6}


def network() -> nn.Module:
    torch.manual_seed(3)
    return nn.Sequential(
        nn.Conv2d(1, 8, 3, padding=1, bias=False),
        nn.BatchNorm2d(8),
        nn.ReLU(),
        nn.Conv2d(8, 16, 3, 2, 1, bias=False),
        nn.BatchNorm2d(16),
        nn.ReLU(),
        nn.Flatten(),
        nn.Linear(256, 10),
    )


def data() -> tuple[torch.Tensor, torch.Tensor]:
    from netsuke.pipeline.train import samples

    x, y = samples("digits:train", "data")
    return x[:256], y[:256]


def run(epochs: int = 3, **keywords: object) -> TrainResult:
    return netsuke.train(network(), data(), options=OPTIONS, epochs=epochs, batch=32, progress=False, **keywords)


def weights(result: TrainResult) -> bytes:
    return b"".join(v.contiguous().numpy().tobytes() for v in result.model.state_dict().values())


def test_it_learns_and_resumes_bit_for_bit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = run(evaluate=data())
    assert whole.history[-1]["accuracy"] > 0.9
    assert 0 < whole.history[-1]["gradient_error"] < 0.2
    path = tmp_path / "run.pt"
    import sys

    import netsuke.pipeline.train  # noqa: F401  the module, which its function shadows in the package

    module = sys.modules["netsuke.pipeline.train"]
    original, calls = module._epoch, []

    def interrupted(*arguments: object, **keywords: object) -> object:
        calls.append(1)
        if len(calls) == 3:
            raise KeyboardInterrupt
        return original(*arguments, **keywords)

    monkeypatch.setattr(module, "_epoch", interrupted)
    with pytest.raises(KeyboardInterrupt):
        run(checkpoint=path)
    monkeypatch.setattr(module, "_epoch", original)
    resumed = run(checkpoint=path)
    assert weights(resumed) == weights(whole)
    assert [r["loss"] for r in resumed.history] == [r["loss"] for r in whole.history]


def test_fused_normalizations_resume_bit_for_bit(tmp_path: Path) -> None:
    """Without the L1 norm, training computes batch normalization and ReLU in one kernel, and says so; the model keeps
    its own modules."""
    options, path = {**OPTIONS, "l1_norm": False}, tmp_path / "run.pt"

    def go(epochs: int, **more: Any) -> TrainResult:
        return netsuke.train(network(), data(), options=options, epochs=epochs, batch=32, progress=False, **more)

    class Stopped(Exception):
        pass

    def stop(epoch: int, _loss: float) -> None:
        if epoch == 1:
            raise Stopped

    whole = go(2)
    assert whole.notes == ["2 normalizations in one kernel with what stands behind them"]
    assert whole.summary().endswith(whole.notes[0])
    assert [type(m) for m in whole.model if isinstance(m, nn.BatchNorm2d)] == [nn.BatchNorm2d] * 2
    with pytest.raises(Stopped):
        go(2, checkpoint=path, notify=stop)
    with pytest.raises(UsageError, match="another normalizations    got: fused    allowed: torch"):
        go(2, checkpoint=path, fuse=False)
    assert weights(go(2, checkpoint=path)) == weights(whole)
    apart = go(2, fuse=False)
    assert not apart.notes
    assert abs(apart.history[0]["loss"] - whole.history[0]["loss"]) < 0.05


def test_a_network_that_cannot_be_fused_trains_and_says_why() -> None:
    class Moody(nn.Sequential):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return super().forward(x) if float(x.sum()) > 0 else super().forward(-x)

    made = Moody(*network())
    result = netsuke.train(made, data(), options={**OPTIONS, "l1_norm": False}, batch=32, progress=False)
    assert result.model is made
    assert "computed by torch, one operator after the other: torch.fx cannot follow" in result.summary()
    simulated = {**OPTIONS, "l1_norm": False, "products": "simulation"}
    x, y = data()
    assert not netsuke.train(network(), (x[:32], y[:32]), options=simulated, batch=32, progress=False).notes


def test_another_width_cannot_continue(tmp_path: Path) -> None:
    path = tmp_path / "run.pt"
    run(1, checkpoint=path)
    with pytest.raises(UsageError, match="another weight_bits    got: 6") as told:
        netsuke.train(
            network(), data(), options={**OPTIONS, "weight_bits": 4}, batch=32, progress=False, checkpoint=path
        )
    assert "gradient_bits" not in str(told.value)


def test_another_optimizer_cannot_continue(tmp_path: Path) -> None:
    """Its settings come with the checkpoint, so other ones would be ignored without a word."""
    path = tmp_path / "run.pt"
    run(1, checkpoint=path)
    with pytest.raises(UsageError, match=r"another optimizer.*lr 0.05.*lr 0.1"):
        run(1, checkpoint=path, optimizer=lambda p: torch.optim.SGD(p, lr=0.1))
    path.write_bytes(b"not a checkpoint")
    with pytest.raises(FileError, match="not a checkpoint"):
        run(1, checkpoint=path)


def test_wrong_use_is_refused_at_once() -> None:
    with pytest.raises(UsageError, match="epochs"):
        run(0)
    with pytest.raises(UsageError, match="does not train"):
        netsuke.train(network(), data(), method="quantize/minmax", progress=False)
    with pytest.raises(UsageError, match="weight_bits"):
        netsuke.train(network(), data(), options={"weight_bits": 12}, progress=False)


def test_data_that_cannot_be_trained_on_is_named() -> None:
    x, y = data()
    cases = {
        "differ in number": (x, y[:7]),
        "no samples": (x[:0], y[:0]),
        "inputs are bytes": (x.to(torch.uint8).numpy(), y.numpy()),
    }
    for text, given in cases.items():
        with pytest.raises(UsageError, match=text):
            netsuke.train(network(), given, options=OPTIONS, progress=False)
    with pytest.raises(UsageError, match="has no options"):
        netsuke.train(network(), (x, y), method="", options=OPTIONS, progress=False)


def test_arrays_of_numpy_and_a_network_in_training_are_taken() -> None:
    x, y = data()
    given = x[:64].double().numpy(), y[:64].int().numpy()
    seen: list[tuple[int, float]] = []
    first = netsuke.train(network(), given, options=OPTIONS, batch=32, progress=False)
    again = netsuke.train(
        first.model, given, options=OPTIONS, batch=32, progress=False, notify=lambda n, loss: seen.append((n, loss))
    )
    assert seen == [(1, again.history[0]["loss"])]
    assert again.history[0]["loss"] < first.history[0]["loss"]
    with pytest.raises(UsageError, match="gradient_bits 6"):
        netsuke.train(first.model, given, options={**OPTIONS, "gradient_bits": 4}, progress=False)
