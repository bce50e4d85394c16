"""What users get wrong and what networks rarely are: a clear error, or the right result."""

from __future__ import annotations

from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from netsuke.core.errors import UsageError
from netsuke.engine import instruction_sets, load
from netsuke.pipeline import compress
from netsuke.program import interpreter
from netsuke.verify.runners import runtime_available
from tiny_network import inputs, network

needs_runtime = pytest.mark.skipif(not runtime_available(), reason="the compiled runtime is not built")
ODD = (1, 3, 5, 13, 17, 33, 65)  # no tile of any kernel is a multiple of these


def odd_network(seed: int = 0) -> onnx.ModelProto:
    """Dense 3x3, depthwise 5x5, grouped and pointwise convolutions over channel counts that no tile divides."""
    rng = np.random.default_rng(seed)
    nodes, weights, x = [], [], "x"

    def layer(name: str, inputs: int, outputs: int, kernel: int, groups: int = 1, **attrs: Any) -> None:
        nonlocal x
        w = rng.standard_normal((outputs, inputs // groups, kernel, kernel)) / np.sqrt(inputs / groups * kernel**2)
        weights.append(numpy_helper.from_array(w.astype(np.float32), f"{name}.w"))
        weights.append(numpy_helper.from_array(rng.standard_normal(outputs).astype(np.float32) / 4, f"{name}.b"))
        pads = [kernel // 2] * 4
        call = {"group": groups, "pads": pads, **attrs}
        nodes.append(helper.make_node("Conv", [x, f"{name}.w", f"{name}.b"], [f"{name}.y"], name, **call))
        nodes.append(helper.make_node("Relu", [f"{name}.y"], [f"{name}.r"], f"{name}.relu"))
        x = f"{name}.r"

    for index, (before, after) in enumerate(pairwise(ODD)):
        layer(f"dense{index}", before, after, 3 if index % 2 else 1)
        layer(f"depthwise{index}", after, after, 5, after)
    layer("grouped", 65, 35, 3, 5, strides=[2, 2])
    nodes.append(helper.make_node("GlobalAveragePool", [x], ["g"], "pool"))
    nodes.append(helper.make_node("Flatten", ["g"], ["y"], "flat"))
    ends = [
        helper.make_tensor_value_info("x", TensorProto.FLOAT, ["N", 1, "H", "W"]),
        helper.make_tensor_value_info("y", TensorProto.FLOAT, ["N", 35]),
    ]
    graph = helper.make_graph(nodes, "odd", ends[:1], ends[1:], weights)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)


@needs_runtime
def test_odd_channels_tiny_images_and_empty_batches() -> None:
    calib = np.random.default_rng(3).standard_normal((16, 1, 9, 9), dtype=np.float32)
    program = compress(odd_network(), calib=calib, measure=False).program
    codes = [name for name, value in program.values.items() if value.dtype == "u8"]
    for isa in [name for name, here in instruction_sets().items() if here]:
        engine = load(program, threads=2, isa=isa)
        for shape in ((1, 1, 1, 1), (2, 1, 1, 5), (0, 1, 7, 7), (3, 1, 2, 3), (1, 1, 11, 8)):
            x = np.random.default_rng(4).standard_normal(shape, dtype=np.float32)
            wanted, got = interpreter.run(program, {"x": x}, codes), engine.run({"x": x}, codes)
            assert got["y"].shape == (shape[0], 35)
            for name in codes:
                assert np.array_equal(got[name], wanted[name]), (isa, shape, name)


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_numbers_that_are_none_in_a_calibration_file(bad: float, tmp_path: Path) -> None:
    x = inputs(8)
    x[3, 1, 2, 2] = bad
    np.savez(tmp_path / "calib.npz", x=x)
    with pytest.raises(UsageError, match="sample 3"):
        compress(network(), calib=str(tmp_path / "calib.npz"), measure=False)


@pytest.mark.parametrize("kind", ["array", "file"])
def test_empty_data(kind: str, tmp_path: Path) -> None:
    x = inputs(8)[:0]
    np.savez(tmp_path / "calib.npz", x=x)
    with pytest.raises(UsageError, match=r"no samples|empty"):
        compress(network(), calib=x if kind == "array" else str(tmp_path / "calib.npz"), measure=False)


@pytest.mark.parametrize("x", [np.array([["a"] * 4] * 4), np.zeros((4, 3, 10, 10), complex), np.array([None] * 4)])
def test_data_of_a_kind_that_no_network_takes(x: np.ndarray[Any, Any]) -> None:
    with pytest.raises(UsageError, match=r"dtype|numbers"):
        compress(network(), calib=x, measure=False)


@pytest.mark.parametrize("shape", [(8, 10, 10, 3), (8, 3, 10), (8, 1, 10, 10), (8,)])
def test_data_of_another_shape(shape: tuple[int, ...]) -> None:
    with pytest.raises(UsageError, match="do not fit"):
        compress(network(), calib=np.ones(shape, np.float32), measure=False)


@needs_runtime
def test_activations_without_a_range() -> None:
    """All-zero calibration: every range is a point. On zeros the program gives what the float network gives."""
    zeros = np.zeros((8, 3, 10, 10), np.float32)
    small = compress(network(), calib=zeros, measure=False)
    got = load(small.program).run({"x": zeros[:2]})["logits"]
    from onnx.reference import ReferenceEvaluator

    wanted = ReferenceEvaluator(network()).run(None, {"x": zeros[:2]})[0]
    assert np.abs(got - wanted).max() <= 0.05 * max(1e-3, float(np.abs(wanted).max()))


@needs_runtime
def test_inputs_that_do_not_fit_a_program() -> None:
    engine = load(compress(network(), calib=inputs(8), measure=False).program)
    for x, word in ((inputs(2).astype(np.float64), "dtype|f32|float32"), (inputs(2)[:, :2], "shape|3"), ("x", "array")):
        with pytest.raises(UsageError, match=word):
            engine.run({"x": x})  # type: ignore[dict-item]
    assert engine.run({"x": inputs(0)})["logits"].shape == (0, 4)
