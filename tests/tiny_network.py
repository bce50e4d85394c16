"""A residual CNN of a few thousand parameters as an ONNX file, and data for it; no torch needed."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

SIZE, CLASSES = 10, 4


def network(*, size: int | str = SIZE, batch: int | str = "N", seed: int = 0) -> onnx.ModelProto:
    """conv-relu, conv-add-relu, strided conv-relu, global pool, linear: every fusion of the main path once."""
    rng = np.random.default_rng(seed)

    def constant(name: str, *shape: int) -> onnx.TensorProto:
        spread = np.sqrt(2.0 / np.prod(shape[1:])) if len(shape) > 1 else 0.1
        return numpy_helper.from_array((spread * rng.standard_normal(shape)).astype(np.float32), name)

    weights = [
        *(constant("w1", 8, 3, 3, 3), constant("b1", 8), constant("w2", 8, 8, 3, 3), constant("b2", 8)),
        *(constant("w3", 16, 8, 3, 3), constant("b3", 16), constant("wf", CLASSES, 16), constant("bf", CLASSES)),
    ]
    node = helper.make_node
    nodes = [
        node("Conv", ["x", "w1", "b1"], ["c1"], "conv1", pads=[1] * 4),
        node("Relu", ["c1"], ["r1"], "relu1"),
        node("Conv", ["r1", "w2", "b2"], ["c2"], "conv2", pads=[1] * 4),
        node("Add", ["c2", "r1"], ["a1"], "add1"),
        node("Relu", ["a1"], ["r2"], "relu2"),
        node("Conv", ["r2", "w3", "b3"], ["c3"], "conv3", pads=[1] * 4, strides=[2, 2]),
        node("Relu", ["c3"], ["r3"], "relu3"),
        node("GlobalAveragePool", ["r3"], ["g"], "pool"),
        node("Flatten", ["g"], ["f"], "flatten"),
        node("Gemm", ["f", "wf", "bf"], ["logits"], "head", transB=1),
    ]
    inputs = [helper.make_tensor_value_info("x", TensorProto.FLOAT, [batch, 3, size, size])]
    outputs = [helper.make_tensor_value_info("logits", TensorProto.FLOAT, [batch, CLASSES])]
    graph = helper.make_graph(nodes, "tiny", inputs, outputs, weights)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)
    onnx.checker.check_model(model)
    return model


def inputs(count: int, *, size: int = SIZE, seed: int = 1) -> np.ndarray[Any, Any]:
    return np.random.default_rng(seed).standard_normal((count, 3, size, size), dtype=np.float32)


def labels(model: onnx.ModelProto, x: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    """What the float network itself says, so that its accuracy is 1."""
    from onnx.reference import ReferenceEvaluator

    return np.asarray(ReferenceEvaluator(model).run(None, {"x": x})[0]).argmax(axis=1).astype(np.int64)


def write_all(folder: Path) -> dict[str, Path]:
    """tiny.onnx, calib.npz (64 samples) and eval.npz (40 labelled samples) in a folder."""
    model = network()
    files = {name: folder / name for name in ("tiny.onnx", "calib.npz", "eval.npz")}
    onnx.save(model, files["tiny.onnx"])
    np.savez(files["calib.npz"], x=inputs(64))
    x = inputs(40, seed=2)
    np.savez(files["eval.npz"], x=x, y=labels(model, x))
    return files
