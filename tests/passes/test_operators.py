"""Every operator and its forms, as a small graph at two batch sizes, against onnxruntime."""

from __future__ import annotations

import re

import numpy as np
import pytest
from graphs import build, check

pytest.importorskip("onnxruntime")

RNG = np.random.default_rng(7)
SIZES = [{"N": 1, "H": 8, "W": 9}, {"N": 3, "H": 6, "W": 11}]
IMAGE = "float[N,4,H,W] x"


def w(*shape: int) -> np.ndarray:
    return RNG.standard_normal(shape).astype(np.float32) * 0.5


def i64(*values: int) -> np.ndarray:
    return np.asarray(values, np.int64)


IMAGES = {
    "conv": ("y = Conv<kernel_shape=[3,3], pads=[1,1,1,1]>(x, w, b)", {"w": w(6, 4, 3, 3), "b": w(6)}),
    "conv_no_bias_asymmetric": (
        "y = Conv<kernel_shape=[3,2], pads=[0,1,2,0], strides=[2,1]>(x, w)",
        {"w": w(5, 4, 3, 2)},
    ),
    "conv_grouped": ("y = Conv<kernel_shape=[3,3], group=2, dilations=[2,1]>(x, w)", {"w": w(6, 2, 3, 3)}),
    "conv_depthwise": ("y = Conv<kernel_shape=[3,3], group=4, pads=[1,1,1,1]>(x, w)", {"w": w(4, 1, 3, 3)}),
    "conv_add_relu": (
        "a = Conv<pads=[1,1,1,1]>(x, w) b = Add(a, x) y = Relu(b)",
        {"w": w(4, 4, 3, 3)},
    ),
    "conv_broadcast_add": ("a = Conv(x, w) y = Add(a, b)", {"w": w(4, 4, 1, 1), "b": w(1, 4, 1, 1)}),
    "conv_transpose": ("y = ConvTranspose<strides=[2,2], pads=[1,0,1,0]>(x, w, b)", {"w": w(4, 3, 3, 3), "b": w(3)}),
    "conv_transpose_grouped": (
        "y = ConvTranspose<strides=[2,2], group=2, output_padding=[1,0]>(x, w)",
        {"w": w(4, 3, 3, 2)},
    ),
    "batchnorm": (
        "y = BatchNormalization(x, g, b, m, v)",
        {"g": w(4), "b": w(4), "m": w(4), "v": np.abs(w(4)) + 0.5},
    ),
    "conv_batchnorm": (
        "a = Conv(x, w) y = BatchNormalization(a, g, b, m, v)",
        {"w": w(4, 4, 1, 1), "g": w(4), "b": w(4), "m": w(4), "v": np.abs(w(4)) + 0.5},
    ),
    "maxpool": ("y = MaxPool<kernel_shape=[3,3], strides=[2,2], pads=[1,1,1,1]>(x)", {}),
    "maxpool_ceil_dilated": ("y = MaxPool<kernel_shape=[2,2], strides=[2,2], ceil_mode=1, dilations=[2,2]>(x)", {}),
    "avgpool": ("y = AveragePool<kernel_shape=[3,3], strides=[2,2], pads=[1,1,1,1]>(x)", {}),
    "avgpool_count": ("y = AveragePool<kernel_shape=[2,3], pads=[0,1,1,1], count_include_pad=1>(x)", {}),
    "global_average": ("y = GlobalAveragePool(x)", {}),
    "global_max": ("y = GlobalMaxPool(x)", {}),
    "prelu": ("y = PRelu(x, s)", {"s": w(4, 1, 1)}),
    "prelu_scalar": ("y = PRelu(x, s)", {"s": w(1)}),
    "resize_scales": (
        'y = Resize<mode="nearest", coordinate_transformation_mode="asymmetric", nearest_mode="floor">(x, , s)',
        {"s": np.asarray([1, 1, 2, 3], np.float32)},
    ),
    "resize_linear": ('y = Resize<mode="linear">(x, , s)', {"s": np.asarray([1, 1, 2, 2], np.float32)}),
    "resize_align": (
        'y = Resize<mode="linear", coordinate_transformation_mode="align_corners">(x, , s)',
        {"s": np.asarray([1, 1, 2, 2], np.float32)},
    ),
    "space_to_depth": (
        "a = Pad(x, p) s = Slice(a, st, en, ax) y = SpaceToDepth<blocksize=2>(s)",
        {"p": i64(0, 0, 1, 1, 0, 0, 1, 2), "st": i64(0, 0), "en": i64(6, 4), "ax": i64(2, 3)},
    ),
    "depth_to_space_dcr": ("y = DepthToSpace<blocksize=2>(x)", {}),
    "depth_to_space_crd": ('y = DepthToSpace<blocksize=2, mode="CRD">(x)', {}),
    "pad_reflect": ('y = Pad<mode="reflect">(x, p)', {"p": i64(0, 0, 1, 2, 0, 0, 2, 1)}),
    "pad_edge": ('y = Pad<mode="edge">(x, p)', {"p": i64(0, 0, 1, 2, 0, 0, 2, 1)}),
    "pad_value_axes": ("y = Pad(x, p, v, a)", {"p": i64(1, 2, 2, 1), "v": np.float32(1.5), "a": i64(2, 3)}),
    "split_channels": ("a, b = Split<axis=1>(x, s) y = Sub(a, b)", {"s": i64(2, 2)}),
    "split_equal": ("a, b = Split<axis=1, num_outputs=2>(x) y = Mul(a, b)", {}),
    "slice_steps": (
        "y = Slice(x, st, en, ax, sp)",
        {"st": i64(-1, 1), "en": i64(-100, 6), "ax": i64(1, 2), "sp": i64(-1, 2)},
    ),
    "concat_convs": ("a = Conv(x, w) b = Relu(x) y = Concat<axis=1>(a, b)", {"w": w(3, 4, 1, 1)}),
    "shuffle": (
        "r = Reshape(x, s) t = Transpose<perm=[0,2,1,3,4]>(r) d = Shape(x) y = Reshape(t, d)",
        {"s": i64(0, 2, 2, 0, -1)},
    ),
    "flatten_gemm": (
        "c = Conv<strides=[8,8]>(x, k) a = GlobalMaxPool(c) f = Flatten(a) y = Gemm<transB=1>(f, w, b)",
        {"k": w(5, 4, 1, 1), "w": w(7, 5), "b": w(7)},
    ),
    "squeeze_excite": (
        "m = ReduceMean(x, ax) a = Conv(m, w1) r = Relu(a) e = Conv(r, w2) "
        "s = HardSigmoid<alpha=0.1667, beta=0.5>(e) y = Mul(x, s)",
        {"ax": i64(2, 3), "w1": w(2, 4, 1, 1), "w2": w(4, 2, 1, 1)},
    ),
    "instance_norm": ("y = InstanceNormalization(x, g, b)", {"g": w(4), "b": w(4)}),
    "group_norm": ("y = GroupNormalization<num_groups=2>(x, g, b)", {"g": w(4), "b": w(4)}),
    "lp_norm": ("y = LpNormalization<axis=1, p=2>(x)", {}),
    "tile": ("y = Tile(x, r)", {"r": i64(1, 2, 1, 3)}),
    "gather_channels": ("c = Relu(x) y = Gather<axis=1>(c, i)", {"i": i64(3, 0, 2)}),
    "gather_scalar": ("c = Conv(x, w) y = Gather<axis=2>(c, i)", {"w": w(3, 4, 1, 1), "i": np.asarray(-1, np.int64)}),
    "where": ("z = Greater(x, c) y = Where(z, x, c)", {"c": np.float32(0.2)}),
    "argmax": ("c = Conv(x, w) y = ArgMax<axis=1, keepdims=0>(c)", {"w": w(5, 4, 1, 1)}),
    "shape_arithmetic": (
        "s = Shape<start=2>(x) two = Constant<value_ints=[2]>() t = Mul(s, two) f = Constant<value_ints=[0,1]>() "
        "n = Shape<start=0, end=2>(x) z = Concat<axis=0>(n, t) "
        'y = Resize<mode="nearest", coordinate_transformation_mode="asymmetric", nearest_mode="floor">(x, , , z)',
        {},
    ),
    "expand": ("s = Shape(x) c = GlobalAveragePool(x) y = Expand(c, s)", {}),
    "range_position": (
        "s = Shape<start=3, end=4>(x) l = Squeeze(s) o = Constant<value_int=0>() d = Constant<value_int=1>() "
        "r = Range(o, l, d) "
        "f = Cast<to=1>(r) y = Add(x, f)",
        {},
    ),
    "constant_of_shape": ("s = Shape(x) c = ConstantOfShape<value=float[1]{2.5}>(s) y = Mul(x, c)", {}),
    "mask_cast": ("z = Less(x, c) a = Not(z) b = Cast<to=1>(a) y = Mul(x, b)", {"c": np.float32(0.0)}),
    "logical": (
        "a = Less(x, c) b = GreaterOrEqual(x, d) o = Or(a, b) n = And(o, a) e = Xor(n, b) y = Where(e, x, c)",
        {"c": np.float32(0.3), "d": np.float32(0.6)},
    ),
    "transposed_output_mix": (
        "c = Conv(x, w) t = Transpose<perm=[0,2,3,1]>(c) y = LayerNormalization(t, g, b)",
        {"w": w(5, 4, 1, 1), "g": w(5), "b": w(5)},
    ),
    "sum_mean": ("a = Sum(x, x, x) b = Mean(a, x) y = Max(a, b, x)", {}),
}


@pytest.mark.parametrize("name", IMAGES)
def test_image_operator(name: str) -> None:
    body, constants = IMAGES[name]
    out = "int64[M,A,B] y" if name == "argmax" else "float[M,C,A] y" if name == "gather_scalar" else "float[M,C,A,B] y"
    check(build(IMAGE, body, out, constants), SIZES, rtol=1e-4, atol=1e-4)


UNARY = [
    "Abs",
    "Ceil",
    "Cos",
    "Erf",
    "Exp",
    "Floor",
    "HardSwish",
    "Mish",
    "Neg",
    "Relu",
    "Round",
    "Sigmoid",
    "Sign",
    "Sin",
    "Softplus",
    "Tanh",
    "Softsign",
    "Selu",
    "Celu",
    "Elu",
    "LeakyRelu",
    "HardSigmoid",
    "Gelu",
    "ThresholdedRelu",
    "Identity",
]


@pytest.mark.parametrize("op", UNARY)
def test_unary(op: str) -> None:
    check(build("float[N,5] x", f"y = {op}(x)", "float[N,5] y"), SIZES, rtol=1e-5, atol=3e-6)


@pytest.mark.parametrize("op", ["Sqrt", "Log", "Reciprocal"])
def test_unary_of_positive(op: str) -> None:
    check(build("float[N,5] x", f"a = Exp(x) y = {op}(a)", "float[N,5] y"), SIZES, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize(
    "body",
    [
        "s = Sigmoid(x) y = Mul(x, s)",
        "a = Add(x, three) c = Clip(a, zero, six) d = Div(c, six) y = Mul(x, d)",
        "a = Add(x, three) c = Clip(a, zero, six) d = Mul(x, c) y = Div(d, six)",
        "s = Softplus(x) u = Tanh(s) y = Mul(x, u)",
        "d = Div(x, root) e = Erf(d) o = Add(e, one) m = Mul(x, o) y = Mul(m, half)",
        "h = Mul(x, half) d = Div(x, root) e = Erf(d) o = Add(one, e) y = Mul(h, o)",
        "p = Pow(x, three) q = Mul(p, k) r = Add(x, q) u = Mul(r, t) v = Tanh(u) o = Add(v, one) m = Mul(x, o) "
        "y = Mul(m, half)",
    ],
)
def test_activation_patterns_become_one_node(body: str) -> None:
    values = {
        "three": 3.0,
        "zero": 0,
        "six": 6,
        "root": np.sqrt(2),
        "one": 1,
        "half": 0.5,
        "k": 0.044715,
        "t": np.sqrt(2 / np.pi),
    }
    constants = {name: np.asarray(v, np.float32) for name, v in values.items() if re.search(rf"\b{name}\b", body)}
    program = check(build("float[N,50] x", body, "float[N,50] y", constants), SIZES, atol=1e-5)
    assert [node.op for node in program.nodes] == ["unary"]


MATRICES = {
    "gemm": ("y = Gemm(x, w, b)", {"w": w(6, 5), "b": w(5)}),
    "gemm_alpha_beta": ("y = Gemm<alpha=0.5, beta=2.0, transB=1>(x, w, b)", {"w": w(5, 6), "b": w(1)}),
    "gemm_two_activations": ("y = Gemm<transB=1>(x, x)", {}),
    "gemm_trans_a": ("t = Gemm<transA=1>(x, x) y = MatMul(x, t)", {}),
    "matmul_add": ("a = MatMul(x, w) y = Add(b, a)", {"w": w(6, 5), "b": w(5)}),
    "matmul_add_gelu": ("a = MatMul(x, w) b2 = Add(a, b) y = Gelu(b2)", {"w": w(6, 5), "b": w(5)}),
    "matmul_mul_folds": ("a = MatMul(x, w) y = Mul(a, c)", {"w": w(6, 5), "c": w(5)}),
    "linear_residual": ("a = Gemm(x, w, b) r = Add(a, x) y = Tanh(r)", {"w": w(6, 6), "b": w(6)}),
    "matmul_left_constant": ("y = MatMul(w, t) t = Transpose(x)", {"w": w(4, 6)}),
    "softmax": ("y = Softmax(x)", {}),
    "softmax_axis": ("y = Softmax<axis=0>(x)", {}),
    "log_softmax": ("y = LogSoftmax(x)", {}),
    "decomposed_softmax": (
        "m = ReduceMax(x, a) s = Sub(x, m) e = Exp(s) t = ReduceSum(e, a) y = Div(e, t)",
        {"a": i64(1)},
    ),
    "layernorm": ("y = LayerNormalization<epsilon=0.001>(x, g, b)", {"g": w(6), "b": w(6)}),
    "decomposed_layernorm": (
        "m = ReduceMean(x, a) c = Sub(x, m) s = Pow(c, two) v = ReduceMean(s, a) e = Add(v, eps) r = Sqrt(e) "
        "d = Div(c, r) "
        "h = Mul(d, g) y = Add(h, b)",
        {"a": i64(-1), "two": np.float32(2), "eps": np.float32(1e-5), "g": w(6), "b": w(6)},
    ),
    "rms_norm": (
        "s = Mul(x, x) m = ReduceMean(s, a) e = Add(m, eps) r = Sqrt(e) d = Div(x, r) y = Mul(d, g)",
        {"a": i64(-1), "eps": np.float32(1e-5), "g": w(6)},
    ),
    "pow_scalar": ("a = Abs(x) y = Pow(a, c)", {"c": np.float32(1.7)}),
    "min_max": ("a = Min(x, c) y = Max(a, d)", {"c": np.float32(0.5), "d": np.float32(-0.5)}),
    "clip_low_only": ("y = Clip(x, c)", {"c": np.float32(-0.1)}),
    "clip_high_only": ("y = Clip(x, , c)", {"c": np.float32(0.4)}),
    "mod": ("y = Mod<fmod=1>(x, c)", {"c": np.float32(0.7)}),
}


@pytest.mark.parametrize("name", MATRICES)
def test_matrix_operator(name: str) -> None:
    body, constants = MATRICES[name]
    if name == "matmul_left_constant":
        body = "t = Transpose(x) y = MatMul(w, t)"
    check(build("float[N,6] x", body, "float[A,B] y", constants), SIZES, atol=2e-5)


@pytest.mark.parametrize("kind", ["Mean", "Sum", "Max", "Min", "Prod", "L1", "L2", "SumSquare", "LogSumExp", "LogSum"])
@pytest.mark.parametrize("keep", [0, 1])
def test_reduce(kind: str, keep: int) -> None:
    start = "a = Abs(x)" if kind == "LogSum" else "a = Conv(x, w)"
    constants = {"axes": i64(1, -1)} | ({} if kind == "LogSum" else {"w": w(3, 4, 1, 1)})
    body = f"{start} y = Reduce{kind}<keepdims={keep}>(a, axes)"
    out = "float[M,A,B,C] y" if keep else "float[M,B] y"
    check(build(IMAGE, body, out, constants), SIZES, rtol=1e-4, atol=1e-4)


def test_conv1d_and_pools() -> None:
    body = (
        "a = Conv<pads=[1,1]>(x, w, b) r = Relu(a) p = MaxPool<kernel_shape=[2], strides=[2]>(r) "
        "q = AveragePool<kernel_shape=[3], pads=[1,1]>(p) y = ConvTranspose<strides=[2]>(q, t)"
    )
    constants = {"w": w(5, 4, 3), "b": w(5), "t": w(5, 3, 2)}
    check(build("float[N,4,L] x", body, "float[N,3,M] y", constants), [{"N": 1, "L": 10}, {"N": 2, "L": 13}])


def test_attention() -> None:
    body = (
        "q0 = MatMul(x, wq) k0 = MatMul(x, wk) v0 = MatMul(x, wv) "
        "q1 = Reshape(q0, s) k1 = Reshape(k0, s) v1 = Reshape(v0, s) "
        "q = Transpose<perm=[0,2,1,3]>(q1) k = Transpose<perm=[0,2,3,1]>(k1) v = Transpose<perm=[0,2,1,3]>(v1) "
        "m = MatMul(q, k) d = Mul(m, c) p = Softmax<axis=-1>(d) o = MatMul(p, v) "
        "t = Transpose<perm=[0,2,1,3]>(o) f = Reshape(t, e) y = MatMul(f, wo)"
    )
    constants = {f"w{n}": w(8, 8) for n in "qkvo"} | {"s": i64(0, 0, 2, 4), "e": i64(0, 0, 8), "c": np.float32(0.5)}
    program = check(
        build("float[N,L,8] x", body, "float[N,L,8] y", constants), [{"N": 1, "L": 5}, {"N": 3, "L": 4}], atol=1e-5
    )
    ops = [node.op for node in program.nodes]
    assert ops.count("linear") == 4
    assert ops.count("transpose") == 4
    first = next(node for node in program.nodes if node.op == "matmul")
    assert first.attrs == {"trans_b": 1, "alpha": 0.5}


@pytest.mark.parametrize("op", ["LSTM", "GRU"])
@pytest.mark.parametrize("direction", ["forward", "reverse", "bidirectional"])
def test_recurrent(op: str, direction: str) -> None:
    gates, two = (4 if op == "LSTM" else 3), (2 if direction == "bidirectional" else 1)
    extra = ", linear_before_reset=1" if op == "GRU" and direction == "forward" else ""
    names = "y, h, c" if op == "LSTM" else "y, h"
    body = f'{names} = {op}<hidden_size=5, direction="{direction}"{extra}>(x, w, r, b)'
    constants = {"w": w(two, gates * 5, 4), "r": w(two, gates * 5, 5), "b": w(two, 2 * gates * 5)}
    outs = ", ".join(f"float[{'T,D,N,5' if n == 'y' else 'D,N,5'}] {n}" for n in names.split(", "))
    check(build("float[T,N,4] x", body, outs, constants), [{"T": 3, "N": 1}, {"T": 5, "N": 2}], atol=1e-5)


def test_embedding_of_int32_tokens() -> None:
    body = "a = Gather(table, ids) y = ReduceMean<keepdims=0>(a, ax)"
    constants = {"table": w(3, 6), "ax": i64(1)}
    check(build("int32[N,L] ids", body, "float[N,6] y", constants), [{"N": 1, "L": 4}, {"N": 2, "L": 7}])
