"""Networks quantized by another tool, and networks `compress` refuses."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from netsuke.capture import capture
from netsuke.core.errors import UsageError
from netsuke.measure.engines import engine
from netsuke.measure.engines.base import Subject
from netsuke.passes import compile_program
from netsuke.pipeline import compress, inspect, plan
from netsuke.pipeline.foreign import is_quantized, without_quantizers
from netsuke.verify.runners import open_runner
from tiny_network import inputs, labels, network, write_all


@pytest.fixture(scope="module")
def quantized(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The tiny network as onnxruntime's static quantization writes it."""
    pytest.importorskip("onnxruntime")
    folder = tmp_path_factory.mktemp("foreign")
    files = write_all(folder)
    calibration = folder / "by-name.npz"
    np.savez(calibration, x=inputs(32))
    subject = Subject(folder=folder, feeds={}, onnx=files["tiny.onnx"], calibration=calibration)
    engine("onnxruntime").prepare(subject, "int8")
    return folder / "onnxruntime-int8.onnx"


def test_a_quantized_file_runs_packed_with_its_own_scales(quantized: Path) -> None:
    x = inputs(32, seed=2)
    made = compress(quantized, evaluate=(x, labels(network(), x)), measure=False)
    counts = made.layers.counts()
    assert counts["packed"] >= 5
    assert counts["float"] == counts["simulated"] == counts["fallback"] == 0
    assert made.plan.recipe == "as quantized in the file"
    assert any("came quantized" in n for n in made.notes)
    assert made.bytes_before > made.bytes_after
    assert made.check is not None
    assert made.check.compressed_metrics["top1"] > 0.9
    assert made.program.meta["calibration"] == "in the quantized file"


def test_its_outputs_are_the_other_tools(quantized: Path) -> None:
    import onnxruntime

    x = inputs(16, seed=3)
    options = onnxruntime.SessionOptions()
    options.add_session_config_entry("session.x64quantprecision", "1")  # no saturating sums on CPUs without VNNI
    session = onnxruntime.InferenceSession(str(quantized), options, providers=["CPUExecutionProvider"])
    theirs = session.run(None, {"x": x})[0]
    ours = open_runner(compress(quantized, measure=False).program).outputs({"x": x})[0]
    gaps = np.diff(np.unique(ours))
    step = gaps[gaps > 1e-4].min()
    codes = np.rint((ours - theirs) / step)
    assert np.abs(codes).max() <= 1, "at most one code off"
    assert (codes != 0).mean() < 0.01
    assert (ours.argmax(axis=1) == theirs.argmax(axis=1)).all()


def test_taking_the_quantizers_out_gives_the_float_network(quantized: Path) -> None:
    graph = capture(quantized)
    assert is_quantized(graph)
    plain = without_quantizers(graph)
    assert not is_quantized(plain)
    assert is_quantized(graph), "the graph given is not changed"
    x = inputs(4, seed=4)
    stripped = open_runner(compile_program(plain)).outputs({"x": x})[0]
    original = open_runner(compile_program(capture(network()))).outputs({"x": x})[0]
    assert np.abs(stripped - original).max() < 0.05 * np.abs(original).max(), "only the weights' rounding remains"


def test_a_quantized_file_is_quantized_again_when_something_else_is_asked(quantized: Path) -> None:
    x = inputs(32, seed=2)
    asked = compress(quantized, recipe="cpu-w4a8", calib=inputs(32), evaluate=(x, labels(network(), x)), measure=False)
    assert any("quantized again" in n for n in asked.notes)
    assert min(row.weight_bits for row in asked.plan.rows if row.weight_bits) == 4
    assert plan(quantized).recipe == "as quantized in the file"
    edited = plan(quantized, calib=inputs(32), recipe="cpu-w4a8")
    assert any("quantized again" in n for n in edited.notes)
    again = compress(quantized, edited, calib=inputs(32), measure=False)
    assert again.program.constants.keys() == asked.program.constants.keys()
    assert all(np.array_equal(v, again.program.constants[k]) for k, v in asked.program.constants.items())
    default = compress(quantized, recipe="cpu-int8", calib=inputs(32), measure=False)
    assert default.plan.recipe == "as quantized in the file", "INT8 is what the file holds already"


def test_quantized_weights_alone_are_kept_until_a_recipe_asks_for_more() -> None:
    rng = np.random.default_rng(0)
    codes, scales = rng.integers(-127, 128, (8, 3, 3, 3)).astype(np.int8), np.full(8, 0.01, np.float32)
    nodes = [
        helper.make_node("DequantizeLinear", ["w", "s"], ["real"], axis=0),
        helper.make_node("Conv", ["x", "real"], ["y"], "conv"),
    ]
    ports = [helper.make_tensor_value_info(n, TensorProto.FLOAT, ["N", c, None, None]) for n, c in (("x", 3), ("y", 8))]
    constants = [numpy_helper.from_array(codes, "w"), numpy_helper.from_array(scales, "s")]
    graph = helper.make_graph(nodes, "weights", ports[:1], ports[1:], constants)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)
    x = rng.normal(size=(8, 3, 6, 6)).astype(np.float32)
    kept = compress(model, calib=x, shape="1,3,6,6", measure=False)
    assert kept.layers.counts()["float"] == 1
    asked = compress(model, recipe="cpu-int8", calib=x, shape="1,3,6,6", measure=False)
    assert asked.layers.counts()["packed"] == 1
    assert any("quantized again" in n for n in asked.notes)


def test_inspect_shows_it_as_the_program_it_becomes(quantized: Path) -> None:
    found = inspect(quantized)
    assert found.kind == "program"
    assert found.totals()["layers"]["packed"] >= 5


def test_a_network_with_two_data_inputs_is_refused_clearly() -> None:
    ports = [helper.make_tensor_value_info(n, TensorProto.FLOAT, ["N", 4]) for n in ("a", "b", "y")]
    graph = helper.make_graph([helper.make_node("Add", ["a", "b"], ["y"], "add")], "two", ports[:2], ports[2:])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)
    onnx.checker.check_model(model)
    with pytest.raises(UsageError, match="one input"):
        compress(model, measure=False)
