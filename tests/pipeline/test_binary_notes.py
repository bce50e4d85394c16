"""The plan says what float operators cost beside one-bit layers, in milliseconds, where they take most of a call."""

from __future__ import annotations

import re

import numpy as np
import pytest
import torch
from torch import nn

from netsuke.data import Dataset
from netsuke.measure.layers import profile_layers
from netsuke.models.binary import BinaryConv2d
from netsuke.pipeline import plan
from netsuke.pipeline.binary_notes import note_of


class Net(nn.Module):
    """Two one-bit convolutions, around each a shortcut that no integer operator computes."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 64, 1)
        self.layers = nn.ModuleList(BinaryConv2d(64, 64) for _ in range(2))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.stem(x)
        for layer in self.layers:
            x = layer(x) + torch.softmax(x.exp(), dim=1)
        return x.mean((2, 3))


def rows(*each: tuple[str, str, float]) -> list[dict[str, object]]:
    return [{"name": name, "op": op, "ms": ms} for name, op, ms in each]


def test_the_note_adds_up_what_stays_float() -> None:
    kinds = {"a": "packed", "b": "float", "c": "float", "d": "movement"}
    (note,) = note_of(
        rows(("a", "bconv", 1.0), ("b", "conv", 3.0), ("c", "binary", 0.5), ("d", "transpose", 0.5)), kinds
    )
    assert note.startswith("float operators take 3.5 of 5 ms beside 1 one-bit layers (1 ms); most of it b (conv, 3 ms)")
    assert not note_of(rows(("a", "bconv", 4.0), ("b", "conv", 3.0)), kinds)  # under half
    assert not note_of(rows(("a", "qconv", 1.0), ("b", "conv", 3.0)), kinds)  # no one-bit layer


def test_a_float_shortcut_is_named_with_its_milliseconds(monkeypatch: pytest.MonkeyPatch) -> None:
    def profile(*given: object) -> list[dict[str, object]]:  # real operators, times that do not depend on the machine
        return [{**row, "ms": 2.0 if row["op"] == "softmax" else 0.5} for row in profile_layers(*given)]

    monkeypatch.setattr("netsuke.measure.layers.profile_layers", profile)
    torch.manual_seed(0)
    data = Dataset.from_arrays(np.random.default_rng(0).standard_normal((4, 3, 24, 24)).astype(np.float32))
    made = plan(Net().eval(), data, shape=(1, 3, 24, 24), threads=1)
    (note,) = (n for n in made.notes if n.startswith("float operators take"))
    found = re.match(r"float operators take (\S+) of (\S+) ms beside 2 one-bit layers \(1 ms\)", note)
    assert found is not None
    assert 4 <= float(found[1]) <= float(found[2]) - 1
    assert "(softmax, 2 ms)" in note
    without = plan(Net().eval(), shape=(1, 3, 24, 24))
    assert any("not measured without calibration data" in n for n in without.notes)
