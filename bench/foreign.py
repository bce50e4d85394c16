"""Networks quantized by other tools, run packed: onnxruntime's static quantization and NNCF, against onnxruntime.

    python bench/foreign.py --data-root DIR --models-root DIR

The oracle is onnxruntime with its optimizations, which turn Q and DQ nodes into integer operators, and with
`session.x64quantprecision`: exact integer sums on every CPU (what it computes by itself where it has VNNI; elsewhere
its default kernels saturate 16-bit sums). Of files with signed activations onnxruntime fuses only a part and leaves the
rest in float, so the oracle gets them re-encoded, code + 128 and zero point + 128: the same real numbers.

Two columns compare onnxruntime with itself: `default_percent_off`, its kernels without that option, and
`unfused_percent_off`, no optimizations at all, which computes the same file in float and rounds at every step.
"""

from __future__ import annotations

import argparse
import logging
import os
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnx_ir
import rows as result_rows

from netsuke import engine, passes
from netsuke.capture import capture
from netsuke.data import load_data
from netsuke.models import build

Array = np.ndarray[Any, Any]


def by_onnxruntime(
    source: Path, target: Path, x: Array, *, signed: bool, per_channel: bool, operators: bool = False
) -> None:
    """onnxruntime.quantization.quantize_static, min-max, in QDQ or QOperator format."""
    from onnxruntime.quantization import CalibrationDataReader, QuantFormat, QuantType, quantize_static

    class Reader(CalibrationDataReader):  # type: ignore[misc]
        def __init__(self) -> None:
            self.rows: Iterator[int] = iter(range(len(x)))

        def get_next(self) -> dict[str, Array] | None:
            row = next(self.rows, None)
            return None if row is None else {"x": x[row : row + 1]}

    activations = QuantType.QInt8 if signed else QuantType.QUInt8
    quantize_static(
        source, target, Reader(), quant_format=QuantFormat.QOperator if operators else QuantFormat.QDQ,
        per_channel=per_channel, reduce_range=operators, activation_type=activations, weight_type=QuantType.QInt8,
    )  # fmt: skip


def by_nncf(source: Path, target: Path, x: Array) -> None:
    """nncf.quantize on the ONNX model."""
    os.environ.setdefault("NNCF_CI", "1")  # no usage data sent home
    import nncf

    data = nncf.Dataset(range(len(x)), lambda row: {"x": x[row : row + 1]})
    onnx.save(nncf.quantize(onnx.load(source), data, subset_size=len(x)), target)


def run_onnxruntime(model: onnx.ModelProto, x: Array, *, exact: bool = True, fused: bool = True) -> Array:
    """Outputs by onnxruntime, 100 samples at a time."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    if exact:
        options.add_session_config_entry("session.x64quantprecision", "1")
    if not fused:
        options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    session = onnxruntime.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
    name = session.get_inputs()[0].name
    return np.concatenate([session.run(None, {name: x[i : i + 100]})[0] for i in range(0, len(x), 100)])


def unsigned(model: onnx.ModelProto) -> onnx.ModelProto:
    """Signed codes of activations as unsigned ones: zero points + 128."""
    found = onnx.ModelProto()
    found.CopyFrom(model)
    constants = {t.name: t for t in found.graph.initializer}
    points = {
        node.input[2]
        for node in found.graph.node
        if node.op_type in ("QuantizeLinear", "DequantizeLinear") and node.input[0] not in constants
    }
    for name in points:
        zero = onnx.numpy_helper.to_array(constants[name])
        if zero.dtype == np.int8:
            wide = (zero.astype(np.int16) + 128).astype(np.uint8)
            constants[name].CopyFrom(onnx.numpy_helper.from_array(wide, name))
    del found.graph.value_info[:]  # their types have changed
    return found


def step(values: Array) -> float:
    """Distance between neighbouring codes of a dequantized output; 0 when the output was never quantized."""
    levels = np.unique(values)
    gaps = np.diff(levels)
    return float(gaps.min()) if len(levels) <= 256 else 0.0


def judge(network: str, tool: str, path: Path, x: Array) -> dict[str, Any]:
    """One row."""
    program = passes.compile_program(capture(path), name=network)
    net = engine.load(program)
    got = np.concatenate([next(iter(net.run(x[i : i + 100]).values())) for i in range(0, len(x), 100)])
    model = onnx.load(path)
    want = run_onnxruntime(unsigned(model), x)
    unit = step(want) or float(np.abs(want).max()) / 255

    def off(values: Array) -> Array:
        return np.abs(values - want) / unit

    def percent(values: Array) -> float:
        return round(100 * float((off(values) > 0.5).mean()), 4)

    return {
        "network": network,
        "quantized_by": tool,
        "samples": len(x),
        "largest_codes_off": round(float(off(got).max()), 3),
        "percent_of_outputs_off": percent(got),
        "same_top1_percent": round(100 * float((got.argmax(1) == want.argmax(1)).mean()), 3),
        "default_percent_off": percent(run_onnxruntime(model, x, exact=False)),
        "unfused_percent_off": percent(run_onnxruntime(model, x, fused=False)),
        "packed_layers": sum(n.op in ("qconv", "qlinear") for n in program.nodes),
        "float_layers": sum(n.op in ("conv", "linear", "matmul") for n in program.nodes),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data-root", type=Path, required=True)
    parser.add_argument("--models-root", type=Path, required=True)
    parser.add_argument("--networks", default="resnet20,resnet56")
    options = parser.parse_args()
    logging.getLogger().setLevel(logging.ERROR)
    calib = np.concatenate([x for x, _ in load_data("cifar10:train", options.data_root).take(64).batches()])
    test = np.concatenate([x for x, _ in load_data("cifar10:test", options.data_root).batches()])
    path = Path()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        for network in options.networks.split(","):
            module = build(network, weights=options.models_root / "cifar10_resnet" / f"{network}.safetensors")
            source = folder / f"{network}.onnx"
            graph = capture(module, shape=(1, 3, 32, 32))
            graph.graph.inputs[0].name = "x"
            onnx_ir.save(graph, source)
            jobs = {
                "onnxruntime u8 per channel": lambda s, t: by_onnxruntime(s, t, calib, signed=False, per_channel=True),
                "onnxruntime s8 per channel": lambda s, t: by_onnxruntime(s, t, calib, signed=True, per_channel=True),
                "onnxruntime u8 per tensor": lambda s, t: by_onnxruntime(s, t, calib, signed=False, per_channel=False),
                "onnxruntime u8 QOperator": lambda s, t: by_onnxruntime(
                    s, t, calib, signed=False, per_channel=True, operators=True
                ),
                "nncf": lambda s, t: by_nncf(s, t, calib),
            }
            for tool, job in jobs.items():
                target = folder / f"{network}-{tool.replace(' ', '-')}.onnx"
                try:
                    job(source, target)
                    row = judge(network, tool, target, test)
                except Exception as error:
                    row = {"network": network, "quantized_by": tool, "error": f"{type(error).__name__}: {error}"[:300]}
                print(row, flush=True)
                command = "python bench/foreign.py --data-root DIR --models-root DIR"
                path = result_rows.write("foreign", command, [row], keys=("network", "quantized_by"))
    print(path)


if __name__ == "__main__":
    main()
