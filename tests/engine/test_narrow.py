"""Kernels for narrow codes: chosen from what the program states about its codes, results as the interpreter's."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from netsuke.core.errors import NetsukeError
from netsuke.engine import instruction_sets, load
from netsuke.program import interpreter
from netsuke.program.file import to_bytes
from netsuke.program.model import Node, Port, Program

ISAS = [name for name, here in instruction_sets().items() if here]


def network(between: list[Node], *, hi: int = 15, most: int = 7, constants: dict[str, Any] | None = None) -> Program:
    """quantize to [0, hi], `between` (from "q" to "b"), then a 3x3 convolution of stride 2, weights up to `most`."""
    random = np.random.default_rng(hi * 131 + most)
    weights = random.integers(-most, most + 1, (20, 3, 3, 12)).astype(np.int8)
    weights[3], weights[4] = most, -most
    attrs = {"strides": [2, 2], "pads": [1, 1, 1, 1], "x_zero": 2, "zero": 7, "acc_bound": 108 * 255 * 127}
    nodes = [
        Node("quantize", "quant", ["x"], ["q"], {"scale": 0.1, "zero": 2, "hi": hi}),
        *between,
        Node("qconv", "conv", ["b", "w", "mult", "bias", "", ""], ["y"], attrs),
        Node("dequantize", "dequant", ["y"], ["out"], {"scale": 0.1, "zero": 7}),
    ]
    held = {
        "w": weights,
        "mult": random.uniform(0.001, 0.05, 20).astype(np.float32),
        "bias": random.normal(0, 20, 20).astype(np.float32),
        **(constants or {}),
    }
    return Program(
        "narrow", [Port("x", "f32", ("N", 9, 11, 12))], [Port("out", "f32", ("N", 5, 6, 20))], nodes, held, {}
    )


def through(op: str, attrs: dict[str, Any] | None = None, extra: tuple[str, ...] = ()) -> list[Node]:
    return [Node(op, "between", ["q", *extra], ["b"], attrs or {})]


POOL = {"kernel": [3, 3], "strides": [1, 1], "pads": [1, 1, 1, 1]}
SMALL_TABLE = (np.arange(256) % 16).astype(np.uint8)
CASES = {
    "identity": (through("identity"), {}, True),
    "maxpool": (through("maxpool", POOL), {}, True),
    "lut of small codes": (through("lut", {}, ("table",)), {"table": SMALL_TABLE}, True),
    "lut of all codes": (
        through("lut", {}, ("table",)),
        {"table": np.arange(256).astype(np.uint8)[::-1].copy()},
        False,
    ),
    "pad with a code of its own": (
        through("pad", {}, ("pads", "value")),
        {"pads": np.zeros(8, np.int64), "value": np.array([255], np.uint8)},
        False,
    ),
}


@pytest.mark.parametrize("isa", ISAS)
@pytest.mark.parametrize("case", CASES)
def test_known_ranges_choose_the_kernel_and_not_the_result(case: str, isa: str) -> None:
    between, constants, known = CASES[case]
    program = network(between, most=127, constants=constants)  # 15 x 127 fits a chain of 8, 255 x 127 none
    engine = load(program, isa=isa)
    kernel = next(row["kernel"] for row in engine.kernels() if row["node"] == "conv")
    assert ("narrow8" in kernel) == (known and isa == "avx2"), kernel
    x = np.random.default_rng(5).uniform(-3, 3, (2, 9, 11, 12)).astype(np.float32)
    x[0] = 100.0  # every code at its largest
    np.testing.assert_array_equal(engine.run({"x": x})["out"], interpreter.run(program, {"x": x})["out"])


@pytest.mark.parametrize("isa", ISAS)
@pytest.mark.parametrize(("hi", "most"), [(15, 7), (63, 7), (255, 7), (255, 31), (3, 1), (127, 63), (255, 63)])
def test_codes_at_their_extremes_are_exact(hi: int, most: int, isa: str) -> None:
    program = network(through("identity"), hi=hi, most=most)
    engine = load(program, isa=isa)
    for value in (-100.0, 100.0):
        x = np.full((1, 9, 11, 12), value, np.float32)
        np.testing.assert_array_equal(engine.run({"x": x})["out"], interpreter.run(program, {"x": x})["out"])


def test_a_file_cannot_state_the_range_of_an_input(tmp_path: Path) -> None:
    data = to_bytes(network(through("identity"), hi=255, most=127))
    size = int.from_bytes(data[:8], "little")
    header = data[8 : 8 + size].replace(b'\\"x_zero\\":2', b'\\"x_hi\\":1,\\"x_zero\\":2')
    assert len(header) > size
    header += b" " * (-(len(header) + 8) % 64)
    path = tmp_path / "forged.nsk"
    path.write_bytes(len(header).to_bytes(8, "little") + header + data[8 + size :])
    with pytest.raises(NetsukeError, match="x_hi"):
        load(path)
