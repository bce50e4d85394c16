"""Trainings of a claim: an interrupted one goes on from its last epoch and ends with the same bits."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from netsuke.methods.binarize import reste
from netsuke.nn.binarizer import Binarizer, Sign
from netsuke.nn.surrogates import Power
from netsuke.papers.claims._resumed import Trainings

DATA = (torch.randn(24, 6, generator=torch.Generator().manual_seed(1)), torch.arange(24) % 3)


class Interrupted(Exception):
    pass


def runs(lines: list[str]) -> Trainings:
    context: Any = SimpleNamespace(data_root=None, progress=lines.append)
    return Trainings(context, "paper/part", __name__, 3)


def trained(where: Trainings, stop_after: int = 1000) -> nn.Module:
    """Three epochs of three batches; Interrupted at batch `stop_after`."""
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(6, 8), nn.BatchNorm1d(8), nn.Linear(8, 8), nn.Linear(8, 3))
    reste.apply(model, reste.Config(), keep=("0", "3"))
    calls = 0

    def augment(x: Tensor, _: torch.Generator) -> Tensor:
        nonlocal calls
        calls += 1
        if calls > stop_after:
            raise Interrupted
        return x

    found: nn.Module = where.run("reste", model, DATA, epochs=3, batch=8, rate=1e-2, augment=augment)
    return found


def exponents(model: nn.Module) -> list[float]:
    rules = [m.levels for m in model.modules() if isinstance(m, Binarizer)]
    return [r.surrogate.o for r in rules if isinstance(r, Sign) and isinstance(r.surrogate, Power)]


def test_an_interrupted_training_ends_with_the_same_bits(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("NETSUKE_CACHE", str(tmp_path / "whole"))
    whole = trained(runs([]))
    monkeypatch.setenv("NETSUKE_CACHE", str(tmp_path / "parts"))
    with pytest.raises(Interrupted):
        trained(runs([]), stop_after=4)
    lines: list[str] = []
    again = runs(lines)
    resumed = trained(again)
    assert again.path("reste").is_file()  # kept until the seed has its figures
    assert "epoch 3" in lines[0]
    assert all(
        torch.equal(a, b) for a, b in zip(whole.state_dict().values(), resumed.state_dict().values(), strict=True)
    )
    assert exponents(resumed) == exponents(whole) == pytest.approx([3.0] * len(exponents(whole)))
    again.forget()
    assert not list(again.path("reste").parent.glob("*.pt"))
