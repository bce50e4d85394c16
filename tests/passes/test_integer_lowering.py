"""The integer lowering of our own placement.

Nothing between a layer and the residual add and activation fused into it.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx
import pytest
from graphs import build, check, compiled, expected, feeds_for

from netsuke.capture import capture
from netsuke.core.errors import UnsupportedError, UsageError
from netsuke.formats.integer import dyadic, make_multiplier
from netsuke.passes import compile_program, packed_report
from netsuke.passes.report import counts
from netsuke.program import to_bytes, verify
from netsuke.program.interpreter import run

RNG = np.random.default_rng(11)


def s8(*shape: int) -> np.ndarray[Any, Any]:
    return RNG.integers(-127, 128, shape).astype(np.int8)


def f32(value: object) -> np.ndarray[Any, Any]:
    return np.asarray(value, np.float32)


def u8(value: int) -> np.ndarray[Any, Any]:
    return np.asarray(value, np.uint8)


GRIDS = {"sx": f32(0.02), "zx": u8(128), "sy": f32(0.05), "zy": u8(30), "sr": f32(0.04), "zr": u8(10)}


def residual_block(requant: str = "float") -> onnx.ModelProto:
    body = (
        "xq = QuantizeLinear(x, sx, zx) xd = DequantizeLinear(xq, sx, zx) "
        "rq = QuantizeLinear(r, sr, zr) rd = DequantizeLinear(rq, sr, zr) "
        "wd = DequantizeLinear<axis=0>(w, sw) c = Conv<pads=[1,1,1,1]>(xd, wd, b) a = Add(c, rd) t = Clip(a, lo, hi) "
        "yq = QuantizeLinear(t, sy, zy) y = DequantizeLinear(yq, sy, zy)"
    )
    constants = GRIDS | {
        "w": s8(4, 3, 3, 3),
        "sw": f32([0.01, 0.002, 0.005, 0.003]),
        "b": f32([0.5, -0.25, 0.0, 1.0]),
        "lo": f32(0.0),
        "hi": f32(6.0),
    }
    model = build("float[N,3,H,W] x, float[N,4,H,W] r", body, "float[N,4,H,W] y", constants)
    model.metadata_props.add(key="netsuke.requant", value=requant)
    return model


SIZES = [{"N": 1, "H": 5, "W": 7}, {"N": 3, "H": 8, "W": 4}]


def test_a_file_of_another_tool_gets_the_multipliers_and_whole_biases_of_its_engine() -> None:
    foreign = residual_block()
    del foreign.metadata_props[:]
    program = check(foreign, SIZES, atol=0.0501)
    conv = next(node for node in program.nodes if node.op == "qconv")
    sw = np.asarray([0.01, 0.002, 0.005, 0.003], np.float32)
    steps = np.float32(0.02) * sw
    np.testing.assert_array_equal(program.constants[conv.inputs[2]], steps / np.float32(0.05))
    assert conv.inputs[3] == ""
    whole = np.rint(np.asarray([0.5, -0.25, 0, 1]) / steps).astype(np.int32)
    np.testing.assert_array_equal(program.constants[conv.inputs[4]], whole)


def test_conv_residual_clip_is_one_node_with_the_numbers_of_the_specification() -> None:
    program = check(residual_block(), SIZES, atol=0.0501)
    conv = next(node for node in program.nodes if node.op == "qconv")
    assert [node.op for node in program.nodes if node.op.startswith(("conv", "binary", "unary", "qadd"))] == []
    sw = np.asarray([0.01, 0.002, 0.005, 0.003], np.float32)
    mult, bias = (program.constants[conv.inputs[i]] for i in (2, 3))
    sx, sy, sr = np.float32(0.02), np.float32(0.05), np.float32(0.04)
    np.testing.assert_array_equal(mult, (np.float64(sx) * sw.astype(np.float64) / np.float64(sy)).astype(np.float32))
    np.testing.assert_array_equal(bias, (np.asarray([0.5, -0.25, 0, 1]) / np.float64(sy)).astype(np.float32))
    assert conv.attrs["r_mult"] == float(make_multiplier(sr, 1.0, sy))
    assert (conv.attrs["x_zero"], conv.attrs["zero"], conv.attrs["r_zero"]) == (128, 30, 10)
    assert (conv.attrs["lo"], conv.attrs["hi"]) == (30, 30 + round(6 / 0.05))
    assert program.constants[conv.inputs[1]].shape == (4, 3, 3, 3)
    value = program.values[conv.outputs[0]]
    assert (value.scale, value.zero, value.source) == (float(sy), 30, "t")


def test_dyadic_requantization_uses_integers_only() -> None:
    program = check(residual_block("dyadic"), SIZES, atol=0.0501)
    conv = next(node for node in program.nodes if node.op == "qconv_dyadic")
    m, e, bias = (program.constants[conv.inputs[i]] for i in (2, 3, 4))
    steps = np.float64(np.float32(0.02)) * np.asarray([0.01, 0.002, 0.005, 0.003], np.float32).astype(np.float64)
    wanted = dyadic(steps / np.float64(np.float32(0.05)))
    np.testing.assert_array_equal(m, wanted[0])
    np.testing.assert_array_equal(e, wanted[1])
    np.testing.assert_array_equal(bias, np.rint(np.asarray([0.5, -0.25, 0, 1]) / steps).astype(np.int32))


def test_signed_codes_become_unsigned_with_the_same_result() -> None:
    body = (
        "xq = QuantizeLinear(x, sx, zx) xd = DequantizeLinear(xq, sx, zx) wd = DequantizeLinear<axis=0>(w, sw) "
        "c = Conv(xd, wd) yq = QuantizeLinear(c, sy, zy) y = DequantizeLinear(yq, sy, zy)"
    )
    constants = {
        "sx": f32(0.02),
        "zx": np.asarray(-3, np.int8),
        "sy": f32(0.05),
        "zy": np.asarray(7, np.int8),
        "w": s8(4, 3, 1, 1),
        "sw": f32([0.01] * 4),
    }
    program = check(build("float[N,3,H,W] x", body, "float[N,4,H,W] y", constants), SIZES, atol=0.0501)
    conv = next(node for node in program.nodes if node.op == "qconv")
    assert (conv.attrs["x_zero"], conv.attrs["zero"]) == (125, 135)


def test_last_layer_without_a_quantizer_gives_floats() -> None:
    body = (
        "xq = QuantizeLinear(x, sx, zx) xd = DequantizeLinear(xq, sx, zx) wd = DequantizeLinear<axis=1>(w, sw) "
        "m = MatMul(xd, wd) a = Add(m, b) y = Relu(a)"
    )
    constants = GRIDS | {"w": s8(6, 5), "sw": f32([0.01, 0.002, 0.005, 0.003, 0.001]), "b": f32([1, 2, 3, -4, 5])}
    model = build("float[N,6] x", body, "float[N,5] y", constants)
    program = check(model, [{"N": 1}, {"N": 4}], atol=1e-5)
    assert [node.op for node in program.nodes] == ["quantize", "qlinear"]
    assert program.nodes[1].attrs["out"] == "f32"
    assert program.nodes[1].attrs["flo"] == 0.0


def test_moving_operators_work_on_codes() -> None:
    body = (
        "xq = QuantizeLinear(x, sx, zx) xd = DequantizeLinear(xq, sx, zx) p = Pad(xd, pads) "
        "m = MaxPool<kernel_shape=[2,2]>(p) "
        'z = Resize<mode="nearest", coordinate_transformation_mode="asymmetric", nearest_mode="floor">(m, , sc) '
        "d = DepthToSpace<blocksize=2>(z) s1, s2 = Split<axis=2, num_outputs=2>(d) c = Concat<axis=3>(s1, s2) "
        "yq = QuantizeLinear(c, sx, zx) y = DequantizeLinear(yq, sx, zx)"
    )
    constants = GRIDS | {"pads": np.asarray([0, 0, 1, 0, 0, 0, 0, 1], np.int64), "sc": f32([1, 1, 2, 1])}
    program = check(build("float[N,4,6,6] x", body, "float[N,C,A,B] y", constants), [{"N": 2}], atol=1e-6)
    ops = [node.op for node in program.nodes]
    assert ops.count("quantize") == 1
    assert ops.count("dequantize") == 1
    assert set(ops[ops.index("dequantize") + 1 :]) <= {"reshape"}
    assert {"pad", "maxpool", "resize", "depth_to_space", "split", "concat"} <= set(ops)


def test_linear_resize_on_one_grid_interpolates_codes() -> None:
    body = (
        "xq = QuantizeLinear(x, sx, zx) xd = DequantizeLinear(xq, sx, zx) "
        'r = Resize<mode="linear">(xd, , sc) yq = QuantizeLinear(r, sx, zx) y = DequantizeLinear(yq, sx, zx)'
    )
    constants = GRIDS | {"sc": f32([1, 1, 2, 2])}
    program = check(build("float[N,3,H,W] x", body, "float[N,3,A,B] y", constants), SIZES, atol=0.0201)
    assert [node.op for node in program.nodes] == ["quantize", "transpose", "resize", "transpose", "dequantize"]


def test_quantizer_moves_up_through_a_flatten() -> None:
    body = "r = Relu(x) f = Flatten(r) yq = QuantizeLinear(f, sy, zy) y = DequantizeLinear(yq, sy, zy)"
    program = check(build("float[N,3,4,4] x", body, "float[N,48] y", GRIDS), [{"N": 2}], atol=1e-6)
    assert [node.op for node in program.nodes] == ["unary", "reshape", "dequantize"]
    assert program.nodes[0].attrs["quant_zero"] == 30


def test_chain_with_a_quantizer_in_the_middle_is_one_table() -> None:
    body = (
        "xq = QuantizeLinear(x, sx, zx) xd = DequantizeLinear(xq, sx, zx) g = Sigmoid(xd) "
        "gq = QuantizeLinear(g, sg, zg) gd = DequantizeLinear(gq, sg, zg) m = Mul(xd, gd) "
        "yq = QuantizeLinear(m, sy, zy) "
        "y = DequantizeLinear(yq, sy, zy)"
    )
    constants = GRIDS | {"sg": f32(1 / 255), "zg": u8(0)}
    program = check(build("float[N,300] x", body, "float[N,300] y", constants), [{"N": 3}], atol=0.0501)
    assert [node.op for node in program.nodes] == ["quantize", "lut", "dequantize"]


def test_batchnorm_and_relu_on_codes_are_one_table_per_channel() -> None:
    body = (
        "p = MaxPool<kernel_shape=[2,2]>(x) xq = QuantizeLinear(p, sx, zx) xd = DequantizeLinear(xq, sx, zx) "
        "m = Mul(xd, g) "
        "a = Add(m, b) r = Relu(a) yq = QuantizeLinear(r, sy, zy) yd = DequantizeLinear(yq, sy, zy) "
        "wd = DequantizeLinear<axis=0>(w, sw) y = Conv(yd, wd)"
    )
    constants = GRIDS | {
        "g": f32(RNG.random((3, 1, 1)) + 0.5),
        "b": f32(RNG.random((3, 1, 1))),
        "w": s8(4, 3, 1, 1),
        "sw": f32([0.01] * 4),
    }
    program = check(build("float[N,3,H,W] x", body, "float[N,4,A,B] y", constants), SIZES, atol=0.2)
    table = next(node for node in program.nodes if node.op == "lut")
    assert program.constants[table.inputs[1]].shape == (3, 256)
    assert "binary" not in [node.op for node in program.nodes]


def test_subtraction_is_exact_through_negated_codes() -> None:
    body = (
        "xq = QuantizeLinear(x, sx, zx) xd = DequantizeLinear(xq, sx, zx) rq = QuantizeLinear(r, sr, zr) "
        "rd = DequantizeLinear(rq, sr, zr) a = Sub(xd, rd) yq = QuantizeLinear(a, sy, zy) "
        "y = DequantizeLinear(yq, sy, zy)"
    )
    program = check(build("float[N,50] x, float[N,50] r", body, "float[N,50] y", GRIDS), [{"N": 4}], atol=0.0501)
    assert [node.op for node in program.nodes].count("qadd") == 1


def test_linear_after_flatten_has_its_weight_permuted() -> None:
    body = (
        "xq = QuantizeLinear(x, sx, zx) xd = DequantizeLinear(xq, sx, zx) wd = DequantizeLinear<axis=0>(w, sw) "
        "c = Conv(xd, wd) cq = QuantizeLinear(c, sy, zy) cd = DequantizeLinear(cq, sy, zy) f = Flatten(cd) "
        "ud = DequantizeLinear<axis=0>(u, su) y = Gemm<transB=1>(f, ud)"
    )
    constants = GRIDS | {"w": s8(4, 3, 1, 1), "sw": f32([0.01] * 4), "u": s8(5, 36), "su": f32([0.01] * 5)}
    program = check(build("float[N,3,3,3] x", body, "float[N,5] y", constants), [{"N": 2}], atol=0.2)
    assert [node.op for node in program.nodes] == ["quantize", "transpose", "qconv", "reshape", "qlinear"]


def test_overflow_is_refused_by_name() -> None:
    body = (
        "xq = QuantizeLinear(x, sx, zx) xd = DequantizeLinear(xq, sx, zx) "
        "wd = DequantizeLinear(w, sw) y = MatMul(xd, wd)"
    )
    depth = 140_000
    constants = GRIDS | {"w": np.full((depth, 1), 127, np.int8), "sw": f32(0.01)}
    model = build(f"float[N,{depth}] x", body, "float[N,1] y", constants)
    with pytest.raises(UnsupportedError, match="accumulator") as caught:
        compiled(model)
    assert "matmul" in str(caught.value)


def test_taps_give_codes_of_quantized_values_and_change_nothing_else() -> None:
    model = residual_block()
    feeds = feeds_for(model, SIZES[0], 1)
    plain = run(compiled(model), feeds)
    program = compiled(model, taps=("t", "y"))
    tapped = run(program, feeds)
    np.testing.assert_array_equal(plain["y"], tapped["y"])
    codes = tapped[program.outputs[1].name]
    assert codes.dtype == np.uint8
    np.testing.assert_array_equal((codes.astype(np.int32) - 30).astype(np.float32) * np.float32(0.05), plain["y"])
    with pytest.raises(UsageError, match="no such value"):
        compiled(model, taps=("nothing",))


def test_same_input_gives_the_same_bytes() -> None:
    model = residual_block()
    assert to_bytes(compiled(model)) == to_bytes(compiled(model))


def test_report_counts_what_is_packed_and_what_is_simulated() -> None:
    body = (
        "xq = QuantizeLinear(x, sx, zx) xd = DequantizeLinear(xq, sx, zx) wd = DequantizeLinear<axis=0>(w, sw) "
        "a = Conv(xd, wd) y = Conv(xd, v)"
    )
    constants = GRIDS | {"w": s8(4, 3, 1, 1), "sw": f32([0.01] * 4), "v": f32(RNG.random((2, 3, 1, 1)))}
    model = build("float[N,3,H,W] x", body, "float[N,4,H,W] a, float[N,2,H,W] y", constants)
    rows = packed_report(compiled(model))
    found = counts(rows)
    assert found["simulated"] == 1
    assert found["packed"] >= 2
    assert next(r for r in rows if r["op"] == "conv")["kind"] == "simulated"


def test_compiling_leaves_the_graph_as_it_was() -> None:
    graph = capture(residual_block())
    before = onnx.printer.to_text(__import__("onnx_ir").to_proto(graph))
    verify(compile_program(graph))
    assert onnx.printer.to_text(__import__("onnx_ir").to_proto(graph)) == before


def test_expected_runs_without_rewrites() -> None:
    model = residual_block()
    assert expected(model, feeds_for(model, SIZES[0]))[0].shape == (1, 4, 5, 7)
