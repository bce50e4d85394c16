"""Operators on codes that no quantizer at hand writes, against their definition in integers."""

from __future__ import annotations

import numpy as np
import onnx
import pytest

from netsuke.capture import capture
from netsuke.core.errors import UnsupportedError
from netsuke.passes import compile_program
from netsuke.program.interpreter import run

RNG = np.random.default_rng(11)


def model(text: str, **constants: object) -> onnx.ModelProto:
    """A model at opset 17 from ONNX text."""
    found = onnx.parser.parse_model(f'<ir_version: 8, opset_import: ["" : 17, "com.microsoft" : 1]> g {text}')
    for name, array in constants.items():
        found.graph.initializer.append(onnx.numpy_helper.from_array(np.asarray(array), name))
    return found


def codes(x: np.ndarray, scale: float, zero: int) -> np.ndarray:
    return np.clip(np.rint(x / np.float32(scale)) + zero, 0, 255).astype(np.int64)


def test_conv_integer_sums_exactly_and_is_packed() -> None:
    w = RNG.integers(-128, 128, (4, 3, 3, 3)).astype(np.int8)
    body = "q = QuantizeLinear(x, s, z) a = ConvInteger<pads=[1,1,1,1]>(q, w, z) f = Cast<to=1>(a) y = Mul(f, g)"
    found = model(
        f"(float[N,3,5,5] x) => (float[N,4,5,5] y) {{ {body} }}",
        w=w, s=np.float32(0.02), z=np.uint8(117), g=np.float32(0.003),
    )  # fmt: skip
    program = compile_program(capture(found))
    assert "qconv" in [n.op for n in program.nodes]
    assert "conv" not in [n.op for n in program.nodes]
    x = RNG.standard_normal((2, 3, 5, 5)).astype(np.float32)
    q = np.pad(codes(x, 0.02, 117) - 117, ((0, 0), (0, 0), (1, 1), (1, 1)))
    windows = np.lib.stride_tricks.sliding_window_view(q, (3, 3), axis=(2, 3))
    wanted = np.einsum("nihwyx,oiyx->nohw", windows, w.astype(np.int64)).astype(np.float32) * np.float32(0.003)
    assert np.array_equal(run(program, {"x": x})["y"], wanted)


def test_matmul_integer_with_weights_that_have_a_zero_point() -> None:
    w = RNG.integers(90, 180, (6, 5)).astype(np.uint8)
    found = model(
        "(float[N,6] x) => (float[N,5] y) { q = QuantizeLinear(x, s, z) a = MatMulInteger(q, w, z, k) "
        "y = Cast<to=1>(a) }",
        w=w, s=np.float32(0.05), z=np.uint8(3), k=np.uint8(130),
    )  # fmt: skip
    program = compile_program(capture(found))
    assert "qlinear" in [n.op for n in program.nodes]
    x = RNG.standard_normal((4, 6)).astype(np.float32)
    wanted = (codes(x, 0.05, 3) - 3) @ (w.astype(np.int64) - 130)
    assert np.array_equal(run(program, {"x": x})["y"], wanted.astype(np.float32))


def test_where_on_codes() -> None:
    names = "q = QuantizeLinear(x, s, z) k = Greater(x, t) c = com.microsoft.QLinearWhere(k, q, s, z, r, p, z, s, z)"
    found = model(
        f"(float[N,7] x) => (float[N,7] y) {{ {names} y = DequantizeLinear(c, s, z) }}",
        s=np.float32(0.5), z=np.uint8(100), t=np.float32(0), p=np.float32(0.25), r=np.full((1, 7), 104, np.uint8),
    )  # fmt: skip
    x = RNG.standard_normal((3, 7)).astype(np.float32) * 5
    got = run(compile_program(capture(found)), {"x": x})["y"]
    assert np.array_equal(got, np.where(x > 0, (codes(x, 0.5, 100) - 100) * np.float32(0.5), np.float32(1.0)))


def test_dynamic_quantization_is_refused_with_advice() -> None:
    found = model(
        "(float[N,6] x) => (float[N,5] y) { q, s, z = DynamicQuantizeLinear(x) a = MatMulInteger(q, w, z) "
        "f = Cast<to=1>(a) y = Mul(f, s) }",
        w=np.ones((6, 5), np.int8),
    )
    with pytest.raises(UnsupportedError) as caught:
        capture(found)
    assert [p.what.partition(":")[0] for p in caught.value.problems] == ["DynamicQuantizeLinear", "MatMulInteger"]
    assert all("calibration data" in p.hint for p in caught.value.problems)
