"""Networks quantized by other tools, run packed: onnxruntime's static quantization and NNCF, against onnxruntime.

    python bench/foreign.py --data-root DIR --models-root DIR

The oracle is onnxruntime without graph optimizations: it computes what the Q and DQ nodes say. (Its optimized u8 x s8
kernels saturate 16-bit sums on CPUs without VNNI; how often they differ from the oracle is a column of its own.)
The QOperator format has no such form, its kernels saturate themselves: it is written with weights of 7 bits
(onnxruntime's `reduce_range`), where no sum of two products leaves 16 bits.

Two comparisons. Layer by layer: every layer starts from the codes onnxruntime has there, and its codes are compared
(`layer_*`, QDQ files, a few samples); this is where at most one code off on under 1% is asked. End to end: the float
sums of the oracle round, ours are exact, so now and then a code flips and layers behind it see another input
(`percent_of_outputs_off` grows with depth; onnxruntime's own optimized kernels differ from the oracle too, in a column
of their own).
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
from netsuke.program import Program, interpreter
from netsuke.program.model import Node
from netsuke.verify import parity

Array = np.ndarray[Any, Any]
LAYER_SAMPLES = 4  # the reference interpreter runs them


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


def oracle(path: Path, x: Array, *, optimized: bool) -> Array:
    """Outputs by onnxruntime, 100 samples at a time."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    if not optimized:
        options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    session = onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    name = session.get_inputs()[0].name
    return np.concatenate([session.run(None, {name: x[i : i + 100]})[0] for i in range(0, len(x), 100)])


def step(values: Array) -> float:
    """Distance between neighbouring codes of a dequantized output; 0 when the output was never quantized."""
    levels = np.unique(values)
    gaps = np.diff(levels)
    return float(gaps.min()) if len(levels) <= 256 else 0.0


def layer_by_layer(path: Path, program: Program, x: Array) -> dict[str, Any]:
    """Codes of every layer that starts from the oracle's codes: the largest distance and the share that differs."""
    model = onnx.load(path)
    scales = {t.name: onnx.numpy_helper.to_array(t) for t in model.graph.initializer}
    makers = [n for n in model.graph.node if n.op_type == "QuantizeLinear"]
    quantizers = {n.input[0]: n.output[0] for n in makers}
    grids = {n.input[0]: float(scales[n.input[1]].reshape(-1)[0]) for n in makers}
    known = {v.name for v in model.graph.output}
    model.graph.output.extend(onnx.ValueInfoProto(name=name) for name in set(quantizers.values()) - known)
    target = path.with_suffix(".taps.onnx")
    onnx.save(model, target)
    codes = dict(zip(quantizers, oracle_values(target, x, list(quantizers.values())), strict=True))
    off, count, largest = 0, 0, 0

    def judge(node: Node, results: list[Array]) -> list[Array]:
        nonlocal off, count, largest
        for index, name in enumerate(node.outputs):
            value = program.values.get(name)
            want = codes.get(value.source) if value is not None else None
            if value is None or want is None or results[index].dtype != np.uint8:
                continue
            if value.scale != grids[value.source]:
                continue  # the compiler moved the quantizer: other codes for the same number
            wide = want.astype(np.int16) + (128 if want.dtype == np.int8 else 0)
            same = parity.align(results[index], wide.astype(np.uint8))
            if same is None:
                continue
            away = np.abs(results[index].astype(np.int16) - same)
            off, count, largest = off + int((away > 0).sum()), count + away.size, max(largest, int(away.max()))
            results[index] = np.ascontiguousarray(same)
        return results

    interpreter.run(program, {program.inputs[0].name: x}, after=judge)
    return {
        "layer_codes": count,
        "layer_largest_off": largest,
        "layer_percent_off": round(100 * off / max(count, 1), 4),
    }


def oracle_values(path: Path, x: Array, names: list[str]) -> list[Array]:
    """Values by name from onnxruntime without graph optimizations."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    session = onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    return [np.asarray(v) for v in session.run(names, {session.get_inputs()[0].name: x})]


def judge(network: str, tool: str, path: Path, x: Array) -> dict[str, Any]:
    """One row."""
    program = passes.compile_program(capture(path), name=network)
    net = engine.load(program)
    got = np.concatenate([next(iter(net.run(x[i : i + 100]).values())) for i in range(0, len(x), 100)])
    want, fast = oracle(path, x, optimized=False), oracle(path, x, optimized=True)
    unit = step(want) or float(np.abs(want).max()) / 255
    off = np.abs(got - want) / unit
    return {
        "network": network,
        "quantized_by": tool,
        "samples": len(x),
        "largest_codes_off": round(float(off.max()), 3),
        "percent_of_outputs_off": round(100 * float((off > 0.5).mean()), 4),
        "same_top1_percent": round(100 * float((got.argmax(1) == want.argmax(1)).mean()), 3),
        "optimized_onnxruntime_percent_off": round(100 * float((np.abs(fast - want) / unit > 0.5).mean()), 3),
        **(layer_by_layer(path, program, x[:LAYER_SAMPLES]) if "QOperator" not in tool else {}),
        "packed_layers": sum(n.op in ("qconv", "qlinear") for n in program.nodes),
        "float_layers": sum(n.op in ("conv", "linear", "matmul") for n in program.nodes),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
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
