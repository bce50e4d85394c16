"""Small ONNX graphs written as text, run through onnxruntime and through the program of the compiler."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import onnx
import onnx_ir as ir

from netsuke.capture import capture
from netsuke.core.errors import EnvironmentProblem
from netsuke.passes import compile_program
from netsuke.program import Program, verify
from netsuke.program.interpreter import run

Array = np.ndarray[Any, Any]


def build(
    inputs: str, body: str, outputs: str, constants: dict[str, Array] | None = None, opset: int = 21, domains: str = ""
) -> onnx.ModelProto:
    """A model from ONNX text: inputs "float[N,3,8,8] x", body "y = Relu(x)", outputs "float[N,3,8,8] y"."""
    extra = f', "{domains}" : 1' if domains else ""
    header = f'<ir_version: 10, opset_import: ["" : {opset}{extra}]>'
    model = onnx.parser.parse_model(f"{header} g ({inputs}) => ({outputs}) {{ {body} }}")
    for name, array in (constants or {}).items():
        model.graph.initializer.append(onnx.numpy_helper.from_array(array, name))
    return model


def feeds_for(model: onnx.ModelProto, free: dict[str, int], seed: int = 0) -> dict[str, Array]:
    """Random inputs for named free dimensions; integer inputs are small indices, booleans are random."""
    rng = np.random.default_rng(seed)
    feeds = {}
    for value in model.graph.input:
        kind = onnx.helper.tensor_dtype_to_np_dtype(value.type.tensor_type.elem_type)
        shape = [
            d.dim_value if d.HasField("dim_value") else free[d.dim_param] for d in value.type.tensor_type.shape.dim
        ]
        if kind == np.bool_:
            feeds[value.name] = rng.integers(0, 2, shape).astype(bool)
        elif kind.kind == "i":
            feeds[value.name] = rng.integers(0, 3, shape).astype(kind)
        else:
            feeds[value.name] = rng.standard_normal(shape).astype(kind)
    return feeds


def expected(model: onnx.ModelProto, feeds: dict[str, Array]) -> list[Array]:
    """What onnxruntime computes, with its rewrites off: Q and DQ are then exactly what ONNX says."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    options.log_severity_level = 3
    options.intra_op_num_threads = 1
    session = onnxruntime.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
    return [np.asarray(v) for v in session.run(None, feeds)]


def compiled(model: onnx.ModelProto, **options: Any) -> Program:
    """The program of a model, checked against every rule of the format."""
    program = compile_program(capture(model), **options)
    verify(program)
    return program


def engine_of(program: Program) -> Any:
    """The program in the compiled runtime, or None where that is not built."""
    try:
        from netsuke.engine import load

        return load(program, threads=1)
    except EnvironmentProblem:
        return None


def check(
    model: onnx.ModelProto, sizes: Sequence[dict[str, int]], *, rtol: float = 2e-5, atol: float = 2e-5
) -> Program:
    """Compile once; at every set of free sizes interpreter and engine give what onnxruntime gives."""
    program = compiled(model)
    engine = engine_of(program)
    for seed, free in enumerate(sizes):
        feeds = feeds_for(model, free, seed)
        wanted = expected(model, feeds)
        results = [run(program, feeds)] + ([engine.run(feeds)] if engine is not None else [])
        assert all(len(r) == len(wanted) for r in results)
        for a, b in [pair for r in results for pair in zip(r.values(), wanted, strict=True)]:
            assert a.shape == b.shape
            assert a.dtype == b.dtype
            np.testing.assert_allclose(a.astype(np.float64), b.astype(np.float64), rtol=rtol, atol=atol)
    return program


def graph_of(text: str) -> ir.Graph:
    """A graph from ONNX text, for tests of one pass."""
    return ir.from_onnx_text(text).graph


def ops_of(graph: ir.Graph) -> list[str]:
    return [node.op_type for node in graph]
