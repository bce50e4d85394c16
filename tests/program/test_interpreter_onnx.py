"""Float and movement operators of the interpreter against onnxruntime, which shares no code with it."""

from typing import Any

import numpy as np
import pytest

from netsuke.program import Node, Port, Program
from netsuke.program.emulate import Emulation
from netsuke.program.interpreter import run

onnx = pytest.importorskip("onnx")
ort = pytest.importorskip("onnxruntime")

RNG = np.random.default_rng(0)
X = RNG.normal(size=(2, 6, 7, 4)).astype(np.float32)
WORDS = {"f4": "f32", "u1": "u8", "i4": "i32", "i8": "i64", "b1": "bool"}


def foreign(op: str, arrays: list[Any], outputs: int = 1, **attrs: Any) -> list[Any]:
    """One ONNX node in onnxruntime. None is an absent input."""
    names = [f"i{k}" if a is not None else "" for k, a in enumerate(arrays)]
    node = onnx.helper.make_node(op, names, [f"o{k}" for k in range(outputs)], **attrs)
    ports = [
        onnx.helper.make_tensor_value_info(n, onnx.helper.np_dtype_to_tensor_dtype(a.dtype), a.shape)
        for n, a in zip(names, arrays, strict=True)
        if n
    ]
    outs = [onnx.ValueInfoProto(name=f"o{k}") for k in range(outputs)]
    graph = onnx.helper.make_graph([node], "g", ports, outs)
    model = onnx.helper.make_model(graph, opset_imports=[onnx.helper.make_opsetid("", 19)], ir_version=9)
    options = ort.SessionOptions()
    options.intra_op_num_threads = 1
    session = ort.InferenceSession(model.SerializeToString(), options)
    return session.run(None, {n: a for n, a in zip(names, arrays, strict=True) if n})


def ours(op: str, arrays: list[Any], outputs: int = 1, **attrs: Any) -> list[Any]:
    """The same node in the interpreter; arrays but the first are constants. The emulation must be close to it."""
    names = ["x"] + [f"c{k}" if a is not None else "" for k, a in enumerate(arrays[1:])]
    node = Node(op, "n", names, [f"y{k}" for k in range(outputs)], attrs)
    constants = {n: a for n, a in zip(names[1:], arrays[1:], strict=True) if n}
    x = arrays[0]
    port = Port("x", WORDS[x.dtype.str[1:]], tuple(f"d{i}" for i in range(x.ndim)))
    program = Program("p", [port], [], [node], constants)
    results = run(program, {"x": x}, node.outputs)
    program.outputs = [
        Port(name, WORDS[array.dtype.str[1:]], tuple(f"{name}{i}" for i in range(array.ndim)))
        for name, array in results.items()
    ]
    emulated = Emulation(program).run({"x": x})
    for name, array in results.items():
        assert emulated[name].dtype == array.dtype
        np.testing.assert_allclose(emulated[name], array, rtol=2e-5, atol=2e-5)
    return list(results.values())


def nchw(x: Any) -> Any:
    return np.ascontiguousarray(x.transpose(0, 3, 1, 2))


def nhwc(x: Any) -> Any:
    return np.ascontiguousarray(x.transpose(0, 2, 3, 1))


def close(got: Any, want: Any, tolerance: float = 1e-5) -> None:
    assert got.dtype == want.dtype
    np.testing.assert_allclose(got, want, rtol=tolerance, atol=tolerance)


@pytest.mark.parametrize("groups", [1, 2, 4])
@pytest.mark.parametrize("dilation", [1, 2])
def test_conv_and_its_transpose(groups, dilation):
    w = RNG.normal(size=(8, 3, 2, 4 // groups)).astype(np.float32)
    bias = RNG.normal(size=8).astype(np.float32)
    window = {"strides": [2, 1], "pads": [1, 0, 2, 1], "dilations": [dilation, 1]}
    (want,) = foreign("Conv", [nchw(X), nchw(w), bias], group=groups, **window)
    close(ours("conv", [X, w, bias, None], groups=groups, **window)[0], nhwc(want))
    per_out = 3
    w = RNG.normal(size=(4, 3, 2, per_out)).astype(np.float32)
    bias = RNG.normal(size=per_out * groups).astype(np.float32)
    extra = {**window, "output_padding": [1, 0]}
    (want,) = foreign("ConvTranspose", [nchw(X), nchw(w), bias], group=groups, **extra)
    close(ours("conv_transpose", [X, w, bias], groups=groups, **extra)[0], nhwc(want))


@pytest.mark.parametrize("ceil", [0, 1])
@pytest.mark.parametrize(("kernel", "strides"), [([3, 2], [2, 3]), ([2, 2], [2, 2]), ([3, 3], [1, 2])])
def test_pools(ceil, kernel, strides):
    window = {"strides": strides, "pads": [1, 0, 1, 1]}
    (want,) = foreign("MaxPool", [nchw(X)], kernel_shape=kernel, ceil_mode=ceil, dilations=[1, 2], **window)
    close(ours("maxpool", [X], kernel=kernel, ceil=ceil, dilations=[1, 2], **window)[0], nhwc(want))
    for include in (0, 1):
        extra = {"count_include_pad": include}
        (want,) = foreign("AveragePool", [nchw(X)], kernel_shape=kernel, ceil_mode=ceil, **window, **extra)
        close(ours("avgpool", [X], kernel=kernel, ceil=ceil, **window, **extra)[0], nhwc(want))


COORDS = ["half_pixel", "align_corners", "asymmetric", "pytorch_half_pixel"]


@pytest.mark.parametrize("coord", COORDS)
@pytest.mark.parametrize("size", [(12, 14), (3, 5), (13, 20), (1, 9)])
def test_resize_linear(coord, size):
    sizes = np.array([2, 4, *size], np.int64)
    (want,) = foreign("Resize", [nchw(X), None, None, sizes], mode="linear", coordinate_transformation_mode=coord)
    close(ours("resize", [X, sizes[2:], None], mode="linear", coord=coord)[0], nhwc(want))


@pytest.mark.parametrize("coord", ["half_pixel", "asymmetric", "align_corners"])
@pytest.mark.parametrize("nearest", ["floor", "ceil", "round_prefer_floor", "round_prefer_ceil"])
def test_resize_nearest(coord, nearest):
    for scale in (2.0, 0.5, 3.0):
        scales = np.float32([1, 1, scale, scale])
        attrs = {"mode": "nearest", "coordinate_transformation_mode": coord, "nearest_mode": nearest}
        (want,) = foreign("Resize", [nchw(X), None, scales], **attrs)
        close(ours("resize", [X, None, scales[2:]], coord=coord, nearest=nearest)[0], nhwc(want))


@pytest.mark.parametrize("mode", ["DCR", "CRD"])
def test_depth_to_space_and_back(mode):
    (want,) = foreign("DepthToSpace", [nchw(X)], blocksize=2, mode=mode)
    (got,) = ours("depth_to_space", [X], block=2, mode=mode)
    close(got, nhwc(want))
    assert np.array_equal(ours("space_to_depth", [got], block=2, mode=mode)[0], X)


def test_space_to_depth_is_onnx():
    (want,) = foreign("SpaceToDepth", [nchw(X[:, :, :6])], blocksize=2)
    close(ours("space_to_depth", [X[:, :, :6]], block=2)[0], nhwc(want))


@pytest.mark.parametrize("direction", ["forward", "reverse", "bidirectional"])
@pytest.mark.parametrize("with_state", [False, True])
def test_lstm_and_gru(direction, with_state):
    d = 2 if direction == "bidirectional" else 1
    x = RNG.normal(size=(5, 3, 4)).astype(np.float32)
    for op, gates, outputs in (("LSTM", 4, 3), ("GRU", 3, 2)):
        w = RNG.normal(size=(d, gates * 6, 4)).astype(np.float32)
        r = RNG.normal(size=(d, gates * 6, 6)).astype(np.float32)
        b = RNG.normal(size=(d, 2 * gates * 6)).astype(np.float32) if with_state else None
        state = [RNG.normal(size=(d, 3, 6)).astype(np.float32) if with_state else None for _ in range(outputs - 1)]
        for linear in (0, 1) if op == "GRU" else (None,):
            extra = {} if linear is None else {"linear_before_reset": linear}
            arrays = [x, w, r, b, None, *state]
            want = foreign(op, arrays, outputs, hidden_size=6, direction=direction, **extra)
            got = ours(op.lower(), arrays, outputs, hidden=6, direction=direction, **extra)
            for u, v in zip(got, want, strict=True):
                close(u, v, 2e-5)


UNARY = {
    "abs": "Abs", "ceil": "Ceil", "cos": "Cos", "elu": "Elu", "erf": "Erf", "exp": "Exp", "floor": "Floor",
    "hard_sigmoid": "HardSigmoid", "hard_swish": "HardSwish", "identity": "Identity", "leaky_relu": "LeakyRelu",
    "mish": "Mish", "neg": "Neg", "reciprocal": "Reciprocal", "relu": "Relu", "round": "Round", "sigmoid": "Sigmoid",
    "sign": "Sign", "sin": "Sin", "softplus": "Softplus", "tanh": "Tanh", "isnan": "IsNaN",
}  # fmt: skip


@pytest.mark.parametrize("fn", UNARY)
def test_unary(fn):
    x = np.concatenate([X.ravel() * 4, np.float32([0.5, 1.5, 2.5, -0.5, 1e-3, 30, -30])])
    close(ours("unary", [x], fn=fn)[0], foreign(UNARY[fn], [x])[0])


@pytest.mark.parametrize(("fn", "op"), [("log", "Log"), ("sqrt", "Sqrt")])
def test_unary_of_positive(fn, op):
    close(ours("unary", [np.abs(X)], fn=fn)[0], foreign(op, [np.abs(X)])[0])


def test_functions_that_onnx_writes_as_subgraphs():
    import torch
    import torch.nn.functional as functional

    x = torch.from_numpy(X) * 3
    pairs = {
        "gelu": functional.gelu(x),
        "gelu_tanh": functional.gelu(x, approximate="tanh"),
        "silu": functional.silu(x),
    }
    for fn, want in pairs.items():
        close(ours("unary", [x.numpy()], fn=fn)[0], want.numpy())
    close(ours("unary", [X], fn="clip", alpha=-0.5)[0], np.maximum(X, np.float32(-0.5)))
    assert np.array_equal(ours("unary", [X > 0], fn="not")[0], X <= 0)


REDUCE = {
    "mean": "ReduceMean", "sum": "ReduceSum", "max": "ReduceMax", "min": "ReduceMin", "prod": "ReduceProd",
    "l1": "ReduceL1", "l2": "ReduceL2", "sumsq": "ReduceSumSquare", "logsumexp": "ReduceLogSumExp",
}  # fmt: skip


@pytest.mark.parametrize("fn", REDUCE)
@pytest.mark.parametrize("axes", [[1, 2], [-1], []])
def test_reduce(fn, axes):
    onnx_axes = np.array(axes, np.int64) if axes else None
    arrays = [X] if fn not in ("sum",) and onnx_axes is None else [X, onnx_axes]
    # Below opset 18 most reductions take axes as an attribute; 19 is used here, where they are an input.
    (want,) = foreign(REDUCE[fn], arrays, keepdims=0)
    close(ours("reduce", [X], fn=fn, axes=axes, keepdims=0)[0], want, 2e-5)


def test_softmax_layernorm_argmax():
    close(ours("softmax", [X], axis=1)[0], foreign("Softmax", [X], axis=1)[0])
    close(ours("softmax", [X], axis=-1, log=1)[0], foreign("LogSoftmax", [X], axis=-1)[0])
    gamma, beta = RNG.normal(size=(2, 7, 4)).astype(np.float32)
    (want,) = foreign("LayerNormalization", [X, gamma, beta], axis=2, epsilon=1e-4)
    close(ours("layernorm", [X, gamma, beta], axis=2, eps=1e-4)[0], want)
    ties = np.round(X)
    close(ours("argmax", [ties], axis=-2, keepdims=0)[0], foreign("ArgMax", [ties], axis=-2, keepdims=0)[0])


BINARY = {"add": "Add", "sub": "Sub", "mul": "Mul", "div": "Div", "pow": "Pow", "less": "Less", "equal": "Equal"}
BINARY |= {"less_equal": "LessOrEqual", "greater": "Greater", "greater_equal": "GreaterOrEqual"}


@pytest.mark.parametrize("fn", BINARY)
def test_binary_broadcasts(fn):
    b = RNG.uniform(0.5, 2, (7, 1)).astype(np.float32)
    close(ours("binary", [np.abs(X), b], fn=fn)[0], foreign(BINARY[fn], [np.abs(X), b])[0])


def test_integer_binary():
    a, b = np.array([7, -7, 7, -7], np.int64), np.array([2, 2, -2, -2], np.int64)
    for fn, op in (("div", "Div"), ("mod", "Mod"), ("pow", "Pow")):
        right = np.abs(b) if fn == "pow" else b
        close(ours("binary", [a, right], fn=fn)[0], foreign(op, [a, right])[0])
    close(ours("binary", [X, X[:1] + 2], fn="mod")[0], foreign("Mod", [X, X[:1] + 2], fmod=1)[0])


@pytest.mark.parametrize("seed", range(12))
def test_slice(seed):
    rng = np.random.default_rng(seed)
    axes = rng.permutation(4)[:2]
    steps = rng.choice([1, 2, 3, -1, -2, -3], 2)
    starts, ends = rng.integers(-9, 9, 2), rng.integers(-9, 9, 2)
    arrays = [X, *(np.asarray(v, np.int64) for v in (starts, ends, axes, steps))]
    close(ours("slice", arrays)[0], foreign("Slice", arrays)[0])


def i64(*values: int) -> Any:
    return np.array(values, np.int64)


MOVES = [
    ("reshape", "Reshape", [X, i64(0, -1, 4)], {}, {}),
    ("transpose", "Transpose", [X], {"perm": [3, 1, 0, 2]}, {"perm": [3, 1, 0, 2]}),
    ("gather", "Gather", [X, i64(3, -1).reshape(2, 1)], {"axis": 3}, {"axis": 3}),
    ("pad", "Pad", [X, i64(0, 1, 2, 0, 1, 0, 3, 0), np.array(2.5, np.float32)], {}, {}),
    ("pad", "Pad", [X, i64(0, 1, 2, 0, 1, 0, 3, 0), None], {"mode": "reflect"}, {"mode": "reflect"}),
    ("pad", "Pad", [X, i64(0, 1, 9, 0, 1, 0, 3, 0), None], {"mode": "edge"}, {"mode": "edge"}),
    ("expand", "Expand", [X[:, :1], i64(5, 1, 1)], {}, {}),
    ("tile", "Tile", [X, i64(1, 2, 1, 3)], {}, {}),
    ("squeeze", "Squeeze", [X[:, :1], i64(1)], {}, {}),
    ("unsqueeze", "Unsqueeze", [X, i64(-1, 1)], {}, {}),
    ("shape", "Shape", [X], {"start": 1, "end": -1}, {"start": 1, "end": -1}),
    ("cast", "Cast", [X * 3], {"to": "i32"}, {"to": 6}),
    ("prelu", "PRelu", [X, np.float32([0.1, 0.2, -0.3, 2])], {}, {}),
    ("where", "Where", [X > 0, X * 2, X[:1] * 3], {}, {}),
]


@pytest.mark.parametrize(
    ("op", "onnx_op", "arrays", "attrs", "onnx_attrs"), MOVES, ids=[m[0] + str(i) for i, m in enumerate(MOVES)]
)
def test_movement(op, onnx_op, arrays, attrs, onnx_attrs):
    close(ours(op, arrays, **attrs)[0], foreign(onnx_op, arrays, **onnx_attrs)[0])


@pytest.mark.parametrize("sizes", [i64(2, 3, 2), None])
def test_split(sizes):
    extra = {"num_outputs": 3} if sizes is None else {}
    want = foreign("Split", [X, sizes] if sizes is not None else [X], 3, axis=2, **extra)
    for u, v in zip(ours("split", [X, sizes], 3, axis=2), want, strict=True):
        close(u, v)


def test_casts_saturate_and_wrap():
    x = np.float32([np.nan, np.inf, -np.inf, 300.7, -1.9, 1e20])
    assert ours("cast", [x], to="u8")[0].tolist() == [0, 255, 0, 255, 0, 255]
    assert ours("cast", [x], to="i64")[0].tolist() == [0, 2**63 - 1, -(2**63), 300, -1, 2**63 - 1]
    assert ours("cast", [i64(300, -1, 2**40)], to="u8")[0].tolist() == [44, 255, 0]
    assert ours("cast", [i64(0, 5)], to="bool")[0].tolist() == [False, True]
