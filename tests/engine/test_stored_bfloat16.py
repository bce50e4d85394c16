"""Tensors between bfloat16 layers are stored as bfloat16: half of the memory, the same bits."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
from tests.engine.helpers import Array

from netsuke.engine import instruction_sets, load
from netsuke.formats import f32_to_bf16
from netsuke.program.model import Node, Port, Program

KERNEL_3X3 = {"strides": [1, 1], "pads": [1, 1, 1, 1]}


def inverted_residual(halves: bool) -> Program:
    """MobileNetV2's block with a residual: the addition reads x as f32, only the layers read what lies between them."""
    random = np.random.default_rng(0)
    shapes = {"expand": (96, 1, 1, 16), "depthwise": (96, 3, 3, 1), "project": (16, 1, 1, 96)}
    constants: dict[str, Array] = {k: random.standard_normal(s).astype(np.float32) / 4 for k, s in shapes.items()}
    relu6 = {"act": "clip", "alpha": 0.0, "beta": 6.0}
    nodes = [
        Node("conv", "a", ["x", "expand", "", ""], ["wide"], {**KERNEL_3X3, "pads": [0, 0, 0, 0], **relu6}),
        Node("conv", "b", ["wide", "depthwise", "", ""], ["deep"], {**KERNEL_3X3, "groups": 96, **relu6}),
        Node("conv", "c", ["deep", "project", "", "x"], ["y"], {**KERNEL_3X3, "pads": [0, 0, 0, 0]}),
    ]
    image = ("N", 14, 13, 16)
    program = Program("block", [Port("x", "f32", image)], [Port("y", "f32", image)], nodes, constants)
    if not halves:
        return program
    stored = {name: f32_to_bf16(array) for name, array in constants.items()}
    return dataclasses.replace(program, constants=stored, bf16=set(stored))


X = np.random.default_rng(1).standard_normal((2, 14, 13, 16)).astype(np.float32)


@pytest.mark.parametrize("isa", [name for name, here in instruction_sets().items() if here])
@pytest.mark.parametrize("threads", [1, 3])
def test_storage_changes_no_bit(isa: str, threads: int) -> None:
    """A tapped tensor is handed out as f32, so nothing is stored as bfloat16 when all are tapped."""
    net = load(inverted_residual(True), isa=isa, threads=threads)
    assert all(row["kernel"].startswith("conv_bf16_") for row in net.kernels())
    stored, tapped = net.run({"x": X})["y"], net.run({"x": X}, taps=["wide", "deep"])
    assert tapped["wide"].dtype == np.float32
    np.testing.assert_array_equal(stored, tapped["y"])
    reference = load(inverted_residual(True), isa="portable", threads=1).run({"x": X})["y"]
    np.testing.assert_array_equal(stored, reference)


def test_intermediate_tensors_take_half_of_the_memory() -> None:
    halves, floats = (load(inverted_residual(h), threads=1).arena_bytes({"x": X.shape}) for h in (True, False))
    tensors = 2 * 2 * 14 * 13 * 96 * 4  # two wide tensors in f32
    assert floats >= tensors
    assert halves < 0.6 * floats
