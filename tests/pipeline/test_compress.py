"""`compress` end to end on a small network."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest

import netsuke
from netsuke.core.budget import Budget
from netsuke.core.errors import UsageError
from netsuke.core.plan import Plan
from netsuke.data import Dataset
from netsuke.pipeline import compress
from netsuke.pipeline.small import Small, meets
from netsuke.verify.runners import open_runner, runtime_available
from tiny_network import inputs, labels, network, write_all

needs_runtime = pytest.mark.skipif(not runtime_available(), reason="the compiled runtime is not built")


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    return write_all(tmp_path_factory.mktemp("compress"))


@pytest.fixture(scope="module")
def small(files: dict[str, Path]) -> Small:
    output = files["tiny.onnx"].with_suffix(".nsk")
    budget = Budget(drop="top1:10%")
    return compress(
        files["tiny.onnx"], calib=str(files["calib.npz"]), evaluate=str(files["eval.npz"]), budget=budget, output=output
    )


def test_the_line_of_truth(small: Small) -> None:
    first, second, third = small.summary().splitlines()[:3]
    assert first.startswith("tiny   ")
    assert "top1 100.00 ->" in first
    assert "limit -10.0" in first
    assert second.startswith("contract met.  5 layers: 5 packed int8, 0 float; 0 simulated, 0 fallbacks")
    assert third.startswith("tiny.nsk ")
    if runtime_available():
        assert "integer layers equal to the reference bit for bit" in third
        assert " ms (" in first


def test_what_is_claimed_stands_in_the_file(small: Small) -> None:
    assert small.path is not None
    assert small.path.stat().st_size == small.bytes_after
    on_disk = netsuke.program.read(small.path)  # type: ignore[attr-defined]
    assert [n.op for n in on_disk.nodes] == [n.op for n in small.program.nodes]
    weights = [on_disk.constants[n.inputs[1]] for n in on_disk.nodes if n.op in ("qconv", "qlinear")]
    assert len(weights) == 4
    assert all(w.dtype == np.int8 for w in weights)
    assert on_disk.plan == small.plan.to_toml(measured=False)  # times differ between machines, files do not
    assert on_disk.meta["sample_shape"] == "x=1,3,10,10"


def test_json_is_complete(small: Small) -> None:
    content = small.as_json()
    json.dumps(content, allow_nan=False)
    assert content["schema"] == "netsuke.compress/1"
    assert content["bytes"]["before"] > content["bytes"]["after"]
    assert content["layers"] == {"packed": 5, "simulated": 0, "float": 0, "fallback": 0, "total": 5}
    assert content["contract"]["met"]
    assert content["check"]["metrics"]["float"] == {"top1": 1.0}


def test_every_phase_says_its_seconds_and_memory(small: Small) -> None:
    phases = {row["phase"]: row for row in small.facts["phases"]}
    assert {"capture", "calibrate", "sensitivity", "bias correction", "compile", "check", "layers"} <= set(phases)
    assert all(row["seconds"] >= 0 and row["peak_memory_bytes"] > 0 for row in phases.values())
    assert sum(row["seconds"] for row in phases.values()) <= small.facts["seconds"] + 1
    assert small.summary().count("no labels") == 0


def test_without_labels_the_line_of_truth_says_so(files: dict[str, Path]) -> None:
    found = compress(files["tiny.onnx"], calib=str(files["calib.npz"]), measure=False, effort="fast")
    assert "no labels)" in found.summary().splitlines()[0]
    assert "cosine" not in found.summary().splitlines()[0]


def test_a_missed_contract_comes_with_something_to_try(files: dict[str, Path]) -> None:
    from netsuke.pipeline.advice import advice

    budget = Budget(size="0.01x")
    found = compress(files["tiny.onnx"], calib=str(files["calib.npz"]), measure=False, effort="fast", budget=budget)
    assert len(found.missed) == 1
    assert advice(found)[0].startswith("--bits w4a8 (about ")


@needs_runtime
@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="the peak of a process is read from /proc")
def test_the_memory_announced_holds_and_means_something(tmp_path: Path) -> None:
    """A network with 20 MB of weights and 3 MB of activations a sample, in a process of its own."""
    rng = np.random.default_rng(0)
    sizes = [(64, 3, 3, 3), (64, 64, 3, 3), (512, 64, 3, 3), (1024, 512, 3, 3)]
    text = """<ir_version: 8, opset_import: ["" : 16]> g (float[N,3,64,64] x) => (float[N,1024,1,1] y) {
        a = Conv<pads=[1,1,1,1]>(x, w0) b = Relu(a) c = Conv<pads=[1,1,1,1]>(b, w1) d = Relu(c)
        e = Conv<pads=[1,1,1,1], strides=[4,4]>(d, w2) f = Relu(e) g = Conv<strides=[4,4]>(f, w3) h = Relu(g)
        y = GlobalAveragePool(h) }"""
    model = onnx.parser.parse_model(text)
    for index, size in enumerate(sizes):
        array = (rng.standard_normal(size) / np.sqrt(np.prod(size[1:]))).astype(np.float32)
        model.graph.initializer.append(onnx.numpy_helper.from_array(array, f"w{index}"))
    onnx.save(model, tmp_path / "net.onnx")
    np.savez(tmp_path / "calib.npz", x=rng.standard_normal((24, 3, 64, 64), dtype=np.float32))
    command = "compress net.onnx --calib calib.npz -o net.nsk --json net.json --threads 2"
    subprocess.run([sys.executable, "-m", "netsuke.cli.main", *command.split()], cwd=tmp_path, check=True)
    facts = json.loads((tmp_path / "net.json").read_text())["facts"]
    announced, peak = facts["memory_bound_bytes"], facts["peak_memory_bytes"]
    assert peak <= announced <= 2 * peak + 128 * 2**20


def test_layers_and_the_worst_of_them(small: Small) -> None:
    assert [r.name for r in small.layers] == ["conv1", "conv2", "conv3", "pool", "head"]
    worst = list(small.layers.worst(2))
    known = [r.sqnr_db for r in small.layers if r.sqnr_db is not None]
    assert [r.sqnr_db for r in worst] == sorted(known)[:2]
    conv = next(iter(small.layers))
    assert conv.bytes_before > 2 * conv.bytes > 0
    assert "conv1" in str(small.layers)


def test_same_input_same_bytes(small: Small, files: dict[str, Path], tmp_path: Path) -> None:
    output = tmp_path / "again.nsk"
    budget = Budget(drop="top1:10%")
    again = compress(files["tiny.onnx"], calib=str(files["calib.npz"]), budget=budget, output=output, measure=False)
    assert small.path is not None
    assert output.read_bytes() == small.path.read_bytes()
    assert any("no evaluation data" in n for n in again.notes)


def test_export_runs_elsewhere(small: Small, tmp_path: Path) -> None:
    onnxruntime = pytest.importorskip("onnxruntime")
    small.export(tmp_path / "small.onnx")
    onnx.checker.check_model(str(tmp_path / "small.onnx"))
    session = onnxruntime.InferenceSession(str(tmp_path / "small.onnx"), providers=["CPUExecutionProvider"])
    x = inputs(20, seed=9)
    theirs = session.run(None, {"x": x})[0]
    ours = netsuke.verify.runners.open_runner(small.program).outputs({"x": x})[0]  # type: ignore[attr-defined]
    assert (theirs.argmax(axis=1) == ours.argmax(axis=1)).all()
    assert np.abs(theirs - ours).max() < 0.1 * np.abs(ours).max()


def test_a_plan_can_be_edited_and_replayed(small: Small) -> None:
    plan = Plan.from_toml(small.plan.to_toml())
    plan["conv2"].method, plan["conv2"].status, plan["conv2"].bits = "keep", "float", 32
    kept = compress(network(), plan, calib=inputs(16), measure=False)
    statuses = {r.name: r.status for r in kept.layers}
    assert statuses["conv2"] == "float"
    assert statuses["conv1"] == "packed"
    assert "1 float (conv2, by plan)" in kept.summary()


def test_a_missed_contract_is_told_and_the_result_is_there(tmp_path: Path) -> None:
    budget = Budget(size="0.01x", drop="top1:1%")
    made = compress(network(), calib=inputs(16), budget=budget, output=tmp_path / "s.nsk", effort="fast", measure=False)
    assert (tmp_path / "s.nsk").exists()
    assert len(made.missed) == 2
    assert [line.kind for line in made.missed] == ["size", "unmeasured"]
    assert "size" in str(made.missed[0])
    assert "not measured" in str(made.missed[1])
    assert "contract MISSED" in made.summary()


def test_meets() -> None:
    assert meets({}, 100, 90, None) == []
    assert meets({"size_ratio": 0.5}, 100, 50, None) == []
    assert meets({"size_bytes": 10}, 100, 11, None)


def test_data_free_says_so() -> None:
    made = compress(network(), effort="fast", measure=False)
    assert "data-free" in made.plan.data["source"]
    assert made.program.meta["calibration"] == "data-free"
    assert made.layers.counts()["packed"] == 5


def test_own_metric_as_function() -> None:
    x = inputs(16, seed=3)
    y = labels(network(), x)

    def correct(predict: object) -> float:
        return float((predict(x).argmax(axis=1) == y).mean())  # type: ignore[operator]

    made = compress(network(), calib=inputs(16), evaluate=correct, effort="fast", measure=False)
    assert made.check is not None
    assert made.check.float_metrics["correct"] == 1.0
    assert "correct 100.00 -> " in made.summary(), "the line of truth shows the metric that was asked for"


def test_evaluating_on_calibration_data_is_noted() -> None:
    x = inputs(16)
    made = compress(network(), calib=x, evaluate=(x, labels(network(), x)), effort="fast", measure=False)
    assert any("also evaluation samples" in n for n in made.notes)


def test_nothing_is_done_for_a_place_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="no such folder"):
        compress(network(), output=tmp_path / "no" / "s.nsk")


def test_data_in_the_place_of_a_plan_are_refused() -> None:
    with pytest.raises(UsageError, match=r"not a plan[\s\S]*calib=data"):
        compress(network(), inputs(16))  # type: ignore[arg-type]


def test_memory_is_bounded_in_advance() -> None:
    said: list[str] = []
    compress(network(), calib=inputs(16), effort="fast", measure=False, say=said.append)
    assert said[0].startswith("memory: at most ")


@needs_runtime
def test_not_faster_comes_with_its_reason(small: Small) -> None:
    assert small.timing is not None
    if not small.timing.faster:
        assert small.timing.reason
        assert any("not faster than float" in n for n in small.notes)
    assert small.timing.low <= small.timing.speedup <= small.timing.high


def test_why_not_faster_finds_the_reason() -> None:
    from netsuke.pipeline.timing import why_not_faster

    def layer(op: str, ms: float, macs: int = 10) -> dict[str, object]:
        return {"name": op, "op": op, "kernel": op, "ms": ms, "macs": macs}

    assert "too small" in why_not_faster([layer("qconv", 0.01)], 0.02, "avx2")
    assert "portable" in why_not_faster([layer("qconv", 5.0)], 4.0, "portable")
    assert "left in float" in why_not_faster([layer("qconv", 1.0), layer("conv", 5.0)], 5.0, "avx2")
    assert "converting" in why_not_faster([layer("qconv", 3.0), layer("quantize", 2.0, 0)], 5.0, "avx2")
    assert "slowest layer, qconv" in why_not_faster([layer("qconv", 5.0)], 4.0, "avx2")


def test_a_loader_is_data() -> None:
    x = inputs(12)
    y = labels(network(), x)
    batches = [(x[i : i + 4], y[i : i + 4]) for i in range(0, 12, 4)]
    made = compress(network(), calib=[x[:8], x[8:]], evaluate=batches, effort="fast", measure=False)
    assert made.plan.data["count"] == 12
    assert made.check is not None
    assert made.check.samples == 12
    assert made.check.labelled
    with pytest.raises(UsageError, match="empty"):
        compress(network(), calib=[])


def test_a_convolution_without_bias_gets_a_corrected_one() -> None:
    """DenseNet's form: normalization stands in front, nothing is folded, and correction adds a bias."""
    import torch
    from torch import nn

    torch.manual_seed(3)
    module = nn.Sequential(nn.BatchNorm2d(3), nn.ReLU(), nn.Conv2d(3, 4, 3, bias=False), nn.ReLU()).eval()
    small = compress(module, calib=inputs(16), recipe="cpu-int8", measure=False)
    assert "qconv" in {n.op for n in small.program.nodes}
    assert small.exactness is None or small.exactness.exact


def test_a_kept_layer_computes_on_bfloat16_where_the_plan_says_so(files: dict[str, Path], tmp_path: Path) -> None:
    made = netsuke.plan(files["tiny.onnx"], calib=str(files["calib.npz"]), effort="fast")
    made["conv2"].method = made["head"].method = "keep"
    made["conv2"].weight_bits = made["head"].weight_bits = 16
    plan = Plan.from_toml(made.to_toml())
    small = compress(files["tiny.onnx"], plan, calib=str(files["calib.npz"]), output=tmp_path / "s.nsk", measure=False)
    halves = [n.name for n in small.program.nodes if n.op in ("conv", "linear") and n.inputs[1] in small.program.bf16]
    assert halves == ["conv2", "head"]
    assert [layer.status for layer in small.layers.rows if layer.name in halves] == ["float", "float"]
    assert small.exactness is None or small.exactness.exact


@pytest.mark.parametrize("groups", [1, 2, 8])
def test_grouped_convolutions_compute_on_bfloat16(groups: int) -> None:
    from netsuke.formats import bf16_to_f32, f32_to_bf16

    rng = np.random.default_rng(groups)
    weight = rng.standard_normal((8, 8 // groups, 3, 3)).astype(np.float32)
    node = onnx.helper.make_node("Conv", ["x", "w"], ["y"], name="conv", group=groups, pads=[1, 1, 1, 1])
    graph = onnx.helper.make_graph(
        [node],
        "g",
        [onnx.helper.make_tensor_value_info("x", onnx.TensorProto.FLOAT, ["N", 8, 6, 5])],
        [onnx.helper.make_tensor_value_info("y", onnx.TensorProto.FLOAT, ["N", 8, 6, 5])],
        [onnx.numpy_helper.from_array(weight, "w")],
    )
    model = onnx.helper.make_model(graph, opset_imports=[onnx.helper.make_opsetid("", 17)], ir_version=9)
    x = rng.standard_normal((4, 8, 6, 5)).astype(np.float32)
    plan = netsuke.plan(model, calib=x, effort="fast")
    plan["conv"].method, plan["conv"].weight_bits = "keep", 16
    small = compress(model, plan, calib=x, measure=False)
    assert small.program.bf16
    onnxruntime = pytest.importorskip("onnxruntime")
    rounded, weights = bf16_to_f32(f32_to_bf16(x)), bf16_to_f32(f32_to_bf16(weight))
    model.graph.initializer[0].CopyFrom(onnx.numpy_helper.from_array(weights, "w"))
    session = onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    found = open_runner(small.program).outputs({"x": x})[0]
    np.testing.assert_allclose(found, session.run(None, {"x": rounded})[0], atol=1e-4)


def test_a_product_of_two_activations_computes_on_bfloat16(tmp_path: Path) -> None:
    from netsuke.formats import bf16_to_f32, f32_to_bf16

    text = """<ir_version: 9, opset_import: ["" : 17]>
    g (float[N,3,21,18] a, float[N,3,18,35] b) => (float[N,3,21,35] y) { y = MatMul(a, b) }"""
    model = onnx.parser.parse_model(text)
    model.graph.node[0].name = "product"
    rng = np.random.default_rng(0)
    calib = {k: rng.standard_normal((4, 3, *s)).astype(np.float32) for k, s in (("a", (21, 18)), ("b", (18, 35)))}
    np.savez(tmp_path / "calib.npz", **calib)
    plan = netsuke.plan(model, calib=str(tmp_path / "calib.npz"), effort="fast")
    plan["product"].method, plan["product"].activation_bits = "keep", 16
    plan = Plan.from_toml(plan.to_toml())
    assert "bf16" in str(plan)
    small = compress(model, plan, calib=str(tmp_path / "calib.npz"), measure=False)
    assert [n.attrs.get("compute") for n in small.program.nodes if n.op == "matmul"] == ["bf16"]
    found = open_runner(small.program).outputs(calib)[0]
    a, b = (bf16_to_f32(f32_to_bf16(v)).astype(np.float64) for v in calib.values())
    np.testing.assert_allclose(found, a @ b, atol=1e-4)


def test_a_layer_without_products_has_no_bfloat16(files: dict[str, Path]) -> None:
    made = netsuke.plan(files["tiny.onnx"], calib=str(files["calib.npz"]), effort="fast")
    row = next(row for row in made.rows if row.weight_bits is None)
    row.method, row.activation_bits = "keep", 16
    with pytest.raises(UsageError, match="no bfloat16 kernel"):
        compress(files["tiny.onnx"], made, calib=str(files["calib.npz"]), measure=False)
    row.method = "quantize/minmax"
    with pytest.raises(UsageError, match="16 bits means float"):
        compress(files["tiny.onnx"], made, calib=str(files["calib.npz"]), measure=False)


def test_bfloat16_where_there_is_none_is_an_error(files: dict[str, Path]) -> None:
    made = netsuke.plan(files["tiny.onnx"], calib=str(files["calib.npz"]), effort="fast")
    made["head"].weight_bits = 16
    with pytest.raises(UsageError, match="float weights on codes have no kernel"):
        compress(files["tiny.onnx"], made, calib=str(files["calib.npz"]), measure=False)


def test_a_limit_given_beside_a_plan_counts(files: dict[str, Path]) -> None:
    made = netsuke.plan(files["tiny.onnx"], calib=str(files["calib.npz"]), effort="fast")
    budget = Budget(size="0.01x")
    small = compress(files["tiny.onnx"], made, calib=str(files["calib.npz"]), budget=budget, measure=False)
    assert any(line.kind == "size" for line in small.missed)


def test_inspect_counts_work_for_the_shape_given() -> None:
    pytest.importorskip("torch")
    found = netsuke.inspect("models:digits_cnn")
    assert not any("None" in item.shape or "?" in item.shape for item in found.items)
    assert found.items[0].op == "Conv"
    assert found.items[0].shape.startswith("Nx")
    assert found.items[0].shape.endswith("x8x8")
    assert all(item.macs for item in found.items if item.op == "Conv")


def test_weights_only_need_no_data_also_with_token_inputs() -> None:
    result = compress("models:char_lm_tiny", recipe="weight-only-int4", measure=False)
    kinds = [node.op for node in result.program.nodes]
    assert kinds.count("wlinear") == 9
    if runtime_available():
        assert result.exactness is not None
        assert result.exactness.exact


def test_one_bit_layers_are_counted_as_such():
    calib = np.random.default_rng(0).random((16, 3, 32, 32), dtype=np.float32)
    result = compress("models:bireal_small", calib=Dataset.from_arrays(calib), effort="fast", measure=False)
    binary = [row for row in result.layers if row.weight_bits == 1]
    assert len(binary) == sum(node.op == "bconv" for node in result.program.nodes) > 0
    assert {(row.status, row.activation_bits) for row in binary} == {("packed", 1)}
    assert f"{len(binary)} packed binary" in result.summary()


def test_a_layer_kept_float_beside_a_packed_one_is_float_by_plan() -> None:
    torch = pytest.importorskip("torch")

    class Fork(torch.nn.Module):  # type: ignore[misc,name-defined]
        def __init__(self) -> None:
            super().__init__()
            self.stem = torch.nn.Conv2d(3, 8, 3)
            self.left, self.right = torch.nn.Conv2d(8, 8, 1), torch.nn.Conv2d(8, 8, 1)

        def forward(self, x: Any) -> Any:
            x = torch.relu(self.stem(x))
            return self.left(x) + self.right(x)

    x = np.random.default_rng(0).standard_normal((8, 3, 8, 8)).astype(np.float32)
    made = netsuke.plan(Fork().eval(), x, effort="fast")
    made["left"].method = "keep"
    small = compress(Fork().eval(), made, calib=x, measure=False)
    (left,) = (row for row in small.layers if row.name == "left")
    assert left.status == "float"
    assert "codes that another layer reads" in left.reason
    assert small.layers.counts()["simulated"] == 0
