"""Files quantized by onnxruntime run as integers and agree with what their Q and DQ nodes say."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from graphs import build, compiled, expected, feeds_for

from netsuke.program import Program
from netsuke.program.interpreter import run

pytest.importorskip("onnxruntime")
RNG = np.random.default_rng(3)


def w(*shape: int) -> np.ndarray[Any, Any]:
    fan = int(np.prod(shape[1:])) or 1
    return (RNG.standard_normal(shape) / np.sqrt(fan)).astype(np.float32)


class Batches:
    """Calibration data in the form onnxruntime wants it."""

    def __init__(self, model: onnx.ModelProto) -> None:
        self.batches: Iterator[Any] = iter([feeds_for(model, {"N": 4}, seed) for seed in range(6)])

    def get_next(self) -> Any:
        return next(self.batches, None)


def quantized(
    model: onnx.ModelProto, folder: Path, *, signed: bool, per_channel: bool, u8_weights: bool = False
) -> onnx.ModelProto:
    from onnxruntime.quantization import CalibrationDataReader, QuantFormat, QuantType, quantize_static

    class Reader(Batches, CalibrationDataReader):  # type: ignore[misc]
        pass

    source, target = folder / "float.onnx", folder / "qdq.onnx"
    onnx.save(model, source)
    quantize_static(
        source,
        target,
        Reader(model),
        quant_format=QuantFormat.QDQ,
        per_channel=per_channel,
        activation_type=QuantType.QInt8 if signed else QuantType.QUInt8,
        weight_type=QuantType.QUInt8 if u8_weights else QuantType.QInt8,
    )
    return onnx.load(target)


NETS = {
    "conv": ("y = Conv<pads=[1,1,1,1]>(x, w, b)", {"w": w(8, 6, 3, 3), "b": w(8)}, {"qconv": 1}),
    "depthwise_relu": (
        "a = Conv<pads=[1,1,1,1], group=6, strides=[2,2]>(x, w, b) y = Relu(a)",
        {"w": w(6, 1, 3, 3), "b": w(6)},
        {"qconv": 1},
    ),
    "clip6": (
        "a = Conv(x, w, b) y = Clip(a, zero, six)",
        {"w": w(8, 6, 1, 1), "b": w(8), "zero": np.float32(0), "six": np.float32(6)},
        {"qconv": 1},
    ),
    "residual": (
        "a = Conv<pads=[1,1,1,1]>(x, w, b) s = Add(a, x) y = Relu(s)",
        {"w": w(6, 6, 3, 3), "b": w(6)},
        {"qconv": 1, "qadd": 1},
    ),
    "mul": (
        "a = Conv(x, w, b) s = Sigmoid(a) t = Tanh(x) y = Mul(s, t)",
        {"w": w(6, 6, 1, 1), "b": w(6)},
        {"qconv": 1, "qmul": 1, "lut": 2},
    ),
    "pools": (
        "c = Conv(x, w, b0) a = MaxPool<kernel_shape=[2,2], strides=[2,2]>(c) "
        "b = AveragePool<kernel_shape=[2,2]>(a) y = GlobalAveragePool(b)",
        {"w": w(6, 6, 1, 1), "b0": w(6)},
        {"qconv": 1, "maxpool": 1, "qavgpool": 1, "qmean": 1},
    ),
    "concat": ("a = Sigmoid(x) y = Concat<axis=1>(x, a)", {}, {"lut": 1, "concat": 1}),
    "matmul": ("g = GlobalAveragePool(x) f = Flatten(g) y = MatMul(f, w)", {"w": w(6, 5)}, {"qmean": 1, "qlinear": 1}),
    "gemm": (
        "g = GlobalAveragePool(x) f = Flatten(g) y = Gemm<transB=1>(f, w, b)",
        {"w": w(5, 6), "b": w(5)},
        {"qmean": 1, "qlinear": 1},
    ),
    "attention_product": ("t = Transpose<perm=[0,1,3,2]>(x) y = MatMul(x, t)", {}, {"qmatmul": 1}),
    "leaky": ("a = Conv(x, w, b) y = LeakyRelu<alpha=0.1>(a)", {"w": w(6, 6, 1, 1), "b": w(6)}, {"qconv": 1, "lut": 1}),
    "resize": (
        'a = Resize<mode="nearest", coordinate_transformation_mode="asymmetric", nearest_mode="floor">(x, , sc) '
        "y = Conv(a, w, b)",
        {"sc": np.asarray([1, 1, 2, 2], np.float32), "w": w(4, 6, 1, 1), "b": w(4)},
        {"qconv": 1, "resize": 1},
    ),
}
FORMS = [(False, True, False), (True, True, False), (True, False, False), (False, False, True)]


@pytest.mark.parametrize(("signed", "per_channel", "u8_weights"), FORMS)
@pytest.mark.parametrize("name", NETS)
def test_agrees_with_the_qdq_graph(
    name: str, signed: bool, per_channel: bool, u8_weights: bool, tmp_path: Path
) -> None:
    body, constants, ops = NETS[name]
    out = "float[N,C] y" if name in ("matmul", "gemm") else "float[N,C,A,B] y"
    model = build("float[N,6,10,10] x", body, out, constants)
    qdq = quantized(model, tmp_path, signed=signed, per_channel=per_channel, u8_weights=u8_weights)
    program = compiled(qdq)
    found = Counter(node.op for node in program.nodes)
    if not u8_weights:
        assert {op: found[op] for op in ops} == ops
        assert not {"conv", "linear", "matmul"} & set(found)
    for size in (1, 5):
        feeds = feeds_for(qdq, {"N": size}, 50 + size)
        codes_agree(program, run(program, feeds)["y"], expected(qdq, feeds)[0], layers=sum(ops.values()))


def codes_agree(program: Program, got: np.ndarray[Any, Any], wanted: np.ndarray[Any, Any], layers: int) -> None:
    """At most one code off per layer, on less than 1 % of the outputs.

    The float sums of the Q/DQ graph round, ours do not.
    """
    last = [node for node in program.nodes if node.op == "dequantize"][-1]
    scale = float(last.attrs["scale"])  # type: ignore[arg-type]
    off = np.abs(got.astype(np.float64) - wanted) / scale
    assert got.shape == wanted.shape
    assert off.max() < layers + 0.01
    # a handful of averages says nothing about shares: there only the distance counts
    assert got.size < 100 or (off > 0.5).mean() < 0.01 * layers


def test_weights_with_a_zero_point_that_leaves_s8_run_as_floats_and_are_counted(tmp_path: Path) -> None:
    model = build(
        "float[N,6,10,10] x", "y = Conv(x, w, b)", "float[N,8,10,10] y", {"w": np.abs(w(8, 6, 1, 1)) - 0.01, "b": w(8)}
    )
    qdq = quantized(model, tmp_path, signed=False, per_channel=False, u8_weights=True)
    program = compiled(qdq)
    assert program.meta["simulated"]
    feeds = feeds_for(qdq, {"N": 2}, 9)
    codes_agree(program, run(program, feeds)["y"], expected(qdq, feeds)[0], layers=1)


def by_operators(model: onnx.ModelProto, folder: Path, *, signed: bool) -> onnx.ModelProto:
    """onnxruntime's QOperator format. Weights of 7 bits: its u8 x s8 kernels saturate sums of two products at 16 bits
    on CPUs without VNNI, with 8 bits they would be no oracle.
    """
    from onnxruntime.quantization import CalibrationDataReader, QuantFormat, QuantType, quantize_static

    class Reader(Batches, CalibrationDataReader):  # type: ignore[misc]
        pass

    source, target = folder / "float.onnx", folder / "qoperator.onnx"
    onnx.save(model, source)
    kinds = QuantType.QInt8 if signed else QuantType.QUInt8
    quantize_static(
        source, target, Reader(model), quant_format=QuantFormat.QOperator, per_channel=True, reduce_range=True,
        activation_type=kinds, weight_type=QuantType.QInt8,
    )  # fmt: skip
    return onnx.load(target)


# what onnxruntime writes, and what it becomes; it leaves Tanh, and a GlobalAveragePool in front of Flatten, in float
OPERATORS = {
    "conv": ({"QLinearConv"}, {"qconv": 1}),
    "depthwise_relu": ({"QLinearConv"}, {"qconv": 1}),
    "residual": ({"QLinearConv", "QLinearAdd"}, {"qconv": 1, "qadd": 1}),
    "mul": ({"QLinearSigmoid", "QLinearMul"}, {"qconv": 1, "qmul": 1, "lut": 1}),
    "pools": (
        {"QLinearAveragePool", "QLinearGlobalAveragePool"},
        {"qconv": 1, "maxpool": 1, "qavgpool": 1, "qmean": 1},
    ),
    "concat": ({"QLinearConcat"}, {"lut": 1, "concat": 1}),
    "matmul": ({"QLinearMatMul"}, {"qlinear": 1}),
    "gemm": ({"QGemm"}, {"qlinear": 1}),
    "leaky": ({"QLinearLeakyRelu"}, {"qconv": 1, "lut": 1}),
    "attention_product": ({"QLinearMatMul"}, {"qmatmul": 1}),
    "resize": ({"QLinearConv"}, {"qconv": 1, "resize": 1}),
    "softmax": ({"QLinearSoftmax"}, {"qconv": 1}),
}
SOFTMAX = ("a = Conv(x, w, b) y = Softmax<axis=1>(a)", {"w": w(6, 6, 1, 1), "b": w(6)}, {"qconv": 1})


@pytest.mark.parametrize("signed", [False, True])
@pytest.mark.parametrize("name", OPERATORS)
def test_the_operator_format_runs_on_the_same_kernels(name: str, signed: bool, tmp_path: Path) -> None:
    body, constants, _ = (NETS | {"softmax": SOFTMAX})[name]
    written, ops = OPERATORS[name]
    out = "float[N,C] y" if name in ("matmul", "gemm") else "float[N,C,A,B] y"
    found = by_operators(build("float[N,6,10,10] x", body, out, constants, opset=17), tmp_path, signed=signed)
    assert {node.op_type for node in found.graph.node} >= written
    program = compiled(found)
    kinds = Counter(node.op for node in program.nodes)
    assert {op: kinds[op] for op in ops} == ops
    assert not {"conv", "linear", "matmul"} & set(kinds)
    feeds = feeds_for(found, {"N": 3}, 77)
    codes_agree(program, run(program, feeds)["y"], expected(found, feeds)[0], layers=sum(ops.values()))
