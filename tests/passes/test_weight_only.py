"""Weights behind DequantizeLinear under float activations, and MatMulNBits: lowered to `wlinear`, right and packed."""

import ml_dtypes
import numpy as np
import onnx
import onnxruntime as ort
import pytest
from onnx import TensorProto, helper, numpy_helper
from onnx.reference import ReferenceEvaluator

from netsuke.capture import capture
from netsuke.engine import load
from netsuke.formats import E4M3, quantize_groups
from netsuke.formats.minifloat import encode
from netsuke.passes import compile_program, packed_report
from netsuke.pipeline import compress
from netsuke.program import interpreter, stored_bits

N, K = 24, 96
TYPES = {"int4": TensorProto.INT4, "uint4": TensorProto.UINT4, "int8": TensorProto.INT8, "uint8": TensorProto.UINT8}
TYPES |= {"int2": TensorProto.INT2, "uint2": TensorProto.UINT2}


def network(kind, *, block=32, zero=True, turned=True, gemm=False, bias=True):
    """x [M, K] by a quantized matrix; `turned`: stored [N, K] behind a Transpose (or transB)."""
    bits = int(kind[-1])
    rng = np.random.default_rng(0)
    weights = rng.normal(size=(N, K)).astype(np.float32)
    codes, scale, zeros = quantize_groups(weights, bits, block or K, symmetric=not zero)
    half = 2 ** (bits - 1) if kind.startswith("u") else 0
    arrays = [
        codes.astype(int) + half,
        scale,
        (np.zeros(scale.shape, int) if zeros is None else zeros.astype(int)) + half,
    ]
    arrays = [a if turned else np.ascontiguousarray(a.T) for a in arrays]
    if not block:
        arrays[1:] = [a.reshape(-1) for a in arrays[1:]]
    k_axis = 1 if turned else 0
    attrs = {"axis": k_axis, "block_size": block} if block else {"axis": 1 - k_axis}
    tensors = [
        helper.make_tensor("q", TYPES[kind], arrays[0].shape, arrays[0].reshape(-1).tolist()),
        numpy_helper.from_array(arrays[1], "s"),
        helper.make_tensor("z", TYPES[kind], arrays[2].shape, arrays[2].reshape(-1).tolist()),
        numpy_helper.from_array(rng.normal(size=N).astype(np.float32), "b"),
    ]
    nodes = [helper.make_node("DequantizeLinear", ["q", "s", "z"] if zero or half else ["q", "s"], ["w"], **attrs)]
    if gemm:
        nodes.append(helper.make_node("Gemm", ["x", "w", "b"][: 2 + bias], ["y"], transB=int(turned), name="mm"))
    else:
        if turned:
            nodes.append(helper.make_node("Transpose", ["w"], ["wt"], perm=[1, 0]))
        nodes.append(helper.make_node("MatMul", ["x", "wt" if turned else "w"], ["h" if bias else "y"], name="mm"))
        nodes += [helper.make_node("Add", ["h", "b"], ["y"])] * bias
    used = {name for node in nodes for name in node.input}
    return model(nodes, [t for t in tensors if t.name in used]), weights


def model(nodes, tensors, domains=(("", 25),), rank=2):
    lead = ["M", "T"][: rank - 1]
    ports = [helper.make_tensor_value_info(n, TensorProto.FLOAT, [*lead, d]) for n, d in (("x", K), ("y", N))]
    graph = helper.make_graph(nodes, "g", ports[:1], ports[1:], tensors)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid(*d) for d in domains], ir_version=13)


def compiled(proto, tmp_path):
    onnx.save(proto, tmp_path / "m.onnx")
    return compile_program(capture(tmp_path / "m.onnx"), name="m")


def feeds(shape=(5, K)):
    return {"x": np.random.default_rng(1).normal(size=shape).astype(np.float32)}


CASES = [
    ("int4", {}),
    ("uint4", {}),
    ("uint4", {"zero": False}),
    ("int4", {"turned": False}),
    ("int4", {"gemm": True}),
    ("uint4", {"gemm": True, "turned": False, "bias": False}),
    ("int8", {"block": 0, "zero": False}),
    ("uint8", {"block": 0, "turned": False}),
    ("int8", {"block": 64}),
    ("int2", {}),
    ("uint2", {"gemm": True}),
]


@pytest.mark.parametrize(("kind", "options"), CASES)
def test_dequantized_weights_become_wlinear(kind, options, tmp_path):
    proto, _ = network(kind, **options)
    program = compiled(proto, tmp_path)
    assert [n.op for n in program.nodes] == ["wlinear"]
    node = program.nodes[0]
    assert stored_bits(program, node.inputs[1]) == int(kind[-1])
    row = packed_report(program)[0]
    assert (row["name"], row["kind"]) == ("mm", "packed")
    want = ReferenceEvaluator(proto).run(None, feeds())[0]
    assert np.allclose(interpreter.run(program, feeds())["y"], want, rtol=1e-4, atol=1e-4)
    assert np.allclose(load(program, threads=1).run(feeds())["y"], want, rtol=1e-4, atol=1e-4)


def test_float8_weights_keep_their_codes(tmp_path):
    weights = np.random.default_rng(0).normal(size=(K, N)).astype(np.float32)
    codes = encode(weights * 100, E4M3)
    tensors = [
        numpy_helper.from_array(codes.view(ml_dtypes.float8_e4m3fn), "q"),
        numpy_helper.from_array(np.full(N, 0.01, np.float32), "s"),
    ]
    nodes = [
        helper.make_node("DequantizeLinear", ["q", "s"], ["w"], axis=1),
        helper.make_node("MatMul", ["x", "w"], ["y"], name="mm"),
    ]
    program = compiled(model(nodes, tensors), tmp_path)
    assert [n.op for n in program.nodes] == ["wlinear"]
    assert program.nodes[0].attrs["format"] == "e4m3"
    want = feeds()["x"] @ (codes.view(ml_dtypes.float8_e4m3fn).astype(np.float32) * np.float32(0.01))
    assert np.allclose(load(program, threads=1).run(feeds())["y"], want, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("bits", [2, 4, 8])
@pytest.mark.parametrize("zero", [False, True])
def test_matmul_nbits_of_onnxruntime(bits, zero, tmp_path):
    rng = np.random.default_rng(0)
    block, groups, per = 32, K // 32, 8 // bits
    codes = rng.integers(0, 2**bits, (N, groups, block)).astype(np.uint8)
    packed = np.zeros((N, groups, block // per), np.uint8)
    points = rng.integers(0, 2**bits, (N, -(-groups // per) * per)).astype(np.uint8)
    points[:, groups:] = 0
    packed_points = np.zeros((N, points.shape[1] // per), np.uint8)
    for i in range(per):
        packed |= codes[..., i::per] << np.uint8(i * bits)
        packed_points |= points[:, i::per] << np.uint8(i * bits)
    scale = rng.uniform(0.01, 0.1, (N, groups)).astype(np.float32)
    tensors = [numpy_helper.from_array(a, n) for a, n in ((packed, "q"), (scale.reshape(-1), "s"))]
    tensors += [numpy_helper.from_array(packed_points.reshape(-1), "z")] * zero
    attrs = {"K": K, "N": N, "bits": bits, "block_size": block, "accuracy_level": 1}
    node = helper.make_node(
        "MatMulNBits", ["x", "q", "s", "z"][: 3 + zero], ["y"], "mm", domain="com.microsoft", **attrs
    )
    proto = model([node], tensors, (("", 17), ("com.microsoft", 1)), rank=3)
    proto.ir_version = 9
    program = compiled(proto, tmp_path)
    assert [n.op for n in program.nodes] == ["wlinear"]
    given = feeds((2, 3, K))
    plain = codes.astype(np.float32) - (points[:, :groups, None] if zero else 2.0 ** (bits - 1))
    want = given["x"] @ (plain * scale[..., None]).reshape(N, K).T
    got = load(program, threads=1).run(given)["y"]
    assert np.allclose(got, want, rtol=1e-3, atol=1e-3)
    session = ort.InferenceSession(proto.SerializeToString(), providers=["CPUExecutionProvider"])
    assert np.allclose(got, session.run(None, given)[0], rtol=1e-2, atol=1e-2)


@pytest.mark.parametrize(("level", "compute"), [(0, "f32"), (1, "f32"), (3, "bf16"), (4, "s8")])
def test_accuracy_level_chooses_how_to_compute(level, compute, tmp_path):
    tensors = [numpy_helper.from_array(np.full((N, 3, 16), 0x9B, np.uint8), "q")]
    tensors += [numpy_helper.from_array(np.ones((N, 3), np.float32), "s")]
    attrs = {"K": K, "N": N, "bits": 4, "block_size": 32, "accuracy_level": level}
    node = helper.make_node("MatMulNBits", ["x", "q", "s"], ["y"], "mm", domain="com.microsoft", **attrs)
    proto = model([node], tensors, (("", 17), ("com.microsoft", 1)))
    proto.ir_version = 9
    assert compiled(proto, tmp_path).nodes[0].attrs.get("compute", "f32") == compute


def test_groups_without_a_kernel_are_computed_in_float_and_said_so(tmp_path):
    proto, _ = network("int4", block=16, gemm=True)
    program = compiled(proto, tmp_path)
    assert [r["kind"] for r in packed_report(program) if r["op"] == "linear"] == ["simulated"]
    want = ReferenceEvaluator(proto).run(None, feeds())[0]
    assert np.allclose(interpreter.run(program, feeds())["y"], want, rtol=1e-4, atol=1e-4)


def test_an_accuracy_level_is_of_packed_weights_only(tmp_path):
    """Without a kernel for the groups the product is float32, as the report says, not bfloat16."""
    tensors = [numpy_helper.from_array(np.full((N, K // 16, 8), 0x9B, np.uint8), "q")]
    tensors += [numpy_helper.from_array(np.full((N, K // 16), 1.01, np.float32), "s")]
    attrs = {"K": K, "N": N, "bits": 4, "block_size": 16, "accuracy_level": 3}
    node = helper.make_node("MatMulNBits", ["x", "q", "s"], ["y"], "mm", domain="com.microsoft", **attrs)
    proto = model([node], tensors, (("", 17), ("com.microsoft", 1)))
    program = compiled(proto, tmp_path)
    assert not program.bf16
    assert all(n.attrs.get("compute", "f32") == "f32" for n in program.nodes)


def float_network(tmp_path):
    rng = np.random.default_rng(0)
    hidden = (rng.normal(size=(K, 64)) / 10).astype(np.float32)
    last = (rng.normal(size=(N, 64)) / 8).astype(np.float32)
    nodes = [
        helper.make_node("MatMul", ["x", "w1"], ["h"], name="first"),
        helper.make_node("Relu", ["h"], ["r"]),
        helper.make_node("Gemm", ["r", "w2", "b"], ["y"], transB=1, name="second"),
    ]
    tensors = [numpy_helper.from_array(a, n) for a, n in ((hidden, "w1"), (last, "w2"))]
    tensors.append(numpy_helper.from_array(rng.normal(size=N).astype(np.float32), "b"))
    onnx.save(model(nodes, tensors, (("", 17),)), tmp_path / "f.onnx")
    return tmp_path / "f.onnx"


@pytest.mark.parametrize(
    ("recipe", "bits"),
    [("weight-only-int8", 8), ("weight-only-int4", 4), ("weight-only-int3", 3), ("weight-only-int4-bf16", 4)],
)
def test_compress_by_recipe(recipe, bits, tmp_path):
    path = float_network(tmp_path)
    small = compress(path, recipe=recipe, output=tmp_path / "x.nsk", measure=False)
    nodes = [n for n in small.program.nodes if n.op == "wlinear"]
    assert [n.name for n in nodes] == ["first", "second"]
    assert all(stored_bits(small.program, n.inputs[1]) <= bits for n in nodes)
    compute, width = ("bf16", 16) if recipe.endswith("bf16") else ("s8", 8)
    assert all(n.attrs["compute"] == compute for n in nodes)
    assert [r.activation_bits for r in small.plan.rows] == [width] * 2
    assert [(r.status, r.weight_bits) for r in small.plan.rows] == [("packed", bits)] * 2
    session = ort.InferenceSession(path, providers=["CPUExecutionProvider"])
    want = session.run(None, feeds())[0]
    got = load(tmp_path / "x.nsk", threads=1).run(feeds())["y"]
    assert np.linalg.norm(got - want) < {8: 0.01, 4: 0.15, 3: 0.3}[bits] * np.linalg.norm(want)
