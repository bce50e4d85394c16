"""A compiled binary network takes what its bits and float numbers take, and at most a twentieth more."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from netsuke.capture import capture
from netsuke.models.binary import BinaryConv2d, bireal_resnet18
from netsuke.passes import compile_program
from netsuke.program import to_bytes


def theoretical_bytes(model: nn.Module) -> float:
    """One bit a binary weight; four bytes a float weight and bias, and two numbers a channel of a normalization."""
    total = 0.0
    for module in model.modules():
        if isinstance(module, BinaryConv2d):
            total += module.weight.numel() / 8
        elif isinstance(module, (nn.Conv2d, nn.Linear)):
            total += 4 * sum(p.numel() for p in module.parameters())
        elif isinstance(module, nn.BatchNorm2d):
            total += 8 * module.num_features
    return total


@pytest.mark.parametrize("side", [64])
def test_bireal_resnet18(side: int) -> None:
    torch.manual_seed(0)
    model = bireal_resnet18().eval()
    program = compile_program(capture(model, shape=(1, 3, side, side)), name="bireal_resnet18")
    assert sum(node.op == "bconv" for node in program.nodes) == 16
    wanted = theoretical_bytes(model)
    assert wanted > 1e6
    assert wanted * 0.9 <= len(to_bytes(program)) <= 1.05 * wanted
