"""MultiThreshold of FINN-style QONNX files, written by hand: packed kernels, and exactly the operator's counts."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from onnx import TensorProto, helper, numpy_helper

from netsuke import engine
from netsuke.capture import capture
from netsuke.core.errors import UnsupportedError
from netsuke.formats.integer import requantize_f32
from netsuke.passes import compile_program
from netsuke.passes.fold_thresholds import fitted, whole_thresholds
from netsuke.program import interpreter, stored_bits, verify

Array = npt.NDArray[Any]
DOMAIN = "qonnx.custom_op.general"
unhurried = settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.too_slow])


def threshold(x: str, t: str, y: str, **attrs: Any) -> onnx.NodeProto:
    return helper.make_node("MultiThreshold", [x, t], [y], name=f"mt_{y}", domain=DOMAIN, **attrs)


def file(nodes: list[onnx.NodeProto], shape: list[Any], out: list[Any], constants: dict[str, Array]) -> Any:
    """A file as FINN writes it: every tensor a float."""
    value = helper.make_tensor_value_info
    graph = helper.make_graph(
        nodes,
        "finn",
        [value("x", TensorProto.FLOAT, shape)],
        [value("y", TensorProto.FLOAT, out)],
        [numpy_helper.from_array(array.astype(np.float32), name) for name, array in constants.items()],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 16), helper.make_opsetid(DOMAIN, 1)])


def counted(x: Array, t: Array, scale: float = 1.0, bias: float = 0.0) -> Array:
    """The operator's definition; channels on axis 1."""
    t = np.broadcast_to(t, (x.shape[1], t.shape[1]))
    shape = (1, x.shape[1], *[1] * (x.ndim - 2), t.shape[1])
    return scale * (x[..., None] >= t.reshape(shape)).sum(-1) + bias


def conv(x: Array, w: Array) -> Array:
    made: Array = torch.nn.functional.conv2d(torch.from_numpy(x), torch.from_numpy(w), padding=1).numpy()
    return made


def network(levels: int, scale: float, bias: float, per_channel: bool) -> tuple[Any, dict[str, Array]]:
    """Threshold, convolution, threshold on its whole sums, convolution."""
    rng = np.random.default_rng(levels)
    one = levels == 1
    draw = (lambda *s: rng.choice([-1.0, 1.0], s)) if one else (lambda *s: rng.integers(-3, 4, s).astype(float))
    values = {
        "t1": np.sort(rng.normal(0, 1, (70 if per_channel else 1, levels)), axis=1),
        "t2": np.sort(rng.integers(-40, 40, (9, levels)), axis=1).astype(float),
        "w1": draw(9, 70, 3, 3),
        "w2": draw(5, 9, 3, 3),
    }
    values = {k: v.astype(np.float32) for k, v in values.items()}
    nodes = [
        threshold("x", "t1", "a", out_scale=scale, out_bias=bias),
        helper.make_node("Conv", ["a", "w1"], ["b"], pads=[1, 1, 1, 1]),
        threshold("b", "t2", "c", out_scale=scale, out_bias=bias, out_dtype="INT4"),
        helper.make_node("Conv", ["c", "w2"], ["y"], pads=[1, 1, 1, 1]),
    ]
    return file(nodes, ["N", 70, 6, 5], ["N", 5, 6, 5], values), values


@pytest.mark.parametrize("per_channel", [True, False])
@pytest.mark.parametrize(
    ("levels", "scale", "bias", "layer"),
    [
        (1, 2.0, -1.0, "bconv"),  # bipolar
        (1, 1.0, 0.0, "bconv"),  # 0 and 1
        (3, 1.0, 0.0, "qconv"),  # 2 bits
        (7, 1.0, -4.0, "qconv"),  # 3 bits, signed
        (15, 0.5, 0.0, "qconv"),  # 4 bits, scaled
    ],
)
def test_thresholds_become_packed_layers(levels: int, scale: float, bias: float, layer: str, per_channel: bool) -> None:
    model, v = network(levels, scale, bias, per_channel)
    program = compile_program(capture(model))
    verify(program)
    assert [n.op for n in program.nodes if "conv" in n.op] == [layer, layer]
    if layer == "bconv":
        assert not [n.op for n in program.nodes if n.op in ("binary", "where", "unary")]  # thresholds went into signs
        assert [n.attrs["out"] for n in program.nodes if n.op == "bconv"] == ["bits", "f32"]
    else:
        codes = [n.inputs[1] for n in program.nodes if n.op == "qconv"]
        assert all(program.constants[name].dtype == np.int8 and stored_bits(program, name) <= 3 for name in codes)
    x = np.random.default_rng(9).normal(0, 1, (2, 70, 6, 5)).astype(np.float32)
    x[0, :, :3] = np.broadcast_to(v["t1"][:, :1], (70, 1))[:, :, None]  # exactly on a threshold: counted
    a = counted(x, v["t1"], scale, bias).astype(np.float32)
    want = conv(counted(conv(a, v["w1"]), v["t2"], scale, bias).astype(np.float32), v["w2"])
    for got in (interpreter.run(program, {"x": x})["y"], engine.load(program).run({"x": x})["y"]):
        assert np.array_equal(got, want)


def test_rows_of_features() -> None:
    rng = np.random.default_rng(1)
    v = {"t": np.sort(rng.normal(0, 1, (12, 3)), axis=1), "w": rng.integers(-2, 3, (12, 4))}
    v = {k: a.astype(np.float32) for k, a in v.items()}
    nodes = [threshold("x", "t", "a"), helper.make_node("MatMul", ["a", "w"], ["y"])]
    program = compile_program(capture(file(nodes, ["N", 12], ["N", 4], v)))
    assert "qlinear" in [n.op for n in program.nodes]
    x = rng.normal(0, 1, (20, 12)).astype(np.float32)
    assert np.array_equal(engine.load(program).run({"x": x})["y"], counted(x, v["t"]).astype(np.float32) @ v["w"])


def test_everything_without_a_form_is_listed() -> None:
    bad = {
        "down": np.array([[2.0, 1.0]]),
        "many": np.arange(256.0)[None],
        "wrong": np.zeros((3, 2)),
        "odd": np.array([[0.0, 1.0]]),
    }
    nodes = [threshold("x" if i == 0 else f"v{i}", name, f"v{i + 1}") for i, name in enumerate(bad)]
    nodes[-1].attribute.append(helper.make_attribute("out_bias", 0.3))
    nodes.append(helper.make_node("Relu", [f"v{len(bad)}"], ["y"]))
    with pytest.raises(UnsupportedError) as raised:
        capture(file(nodes, ["N", 4], ["N", 4], bad))
    text = str(raised.value)
    for part in ("rising order", "thresholds a channel", "channels of thresholds", "out_bias is no zero point"):
        assert part in text


def folded(kind: str, layer: str) -> tuple[Any, dict[str, Array]]:
    """A layer on 2-bit codes and 3-bit thresholds of its sums: a uniform quantizer's, close ones, or far ones."""
    rng = np.random.default_rng(len(kind))
    levels, out = 7, 20
    step, first = rng.uniform(2.5, 40.0, (out, 1)), rng.uniform(-60, 20, (out, 1))
    limits = {
        "uniform": first + step * np.arange(levels),
        "close": np.sort(rng.integers(-60, 60, (out, levels)), axis=1),
        "far": np.array([-2500, -300, -20, 0, 7, 400, 2500]) + rng.integers(-3, 4, (out, 1)),
    }[kind]
    conv_like = layer == "Conv"
    v = {
        "t1": np.sort(rng.normal(0, 1, (1, 3)), axis=1),
        "w1": rng.integers(-3, 4, (out, 16, 3, 3) if conv_like else (16, out)),
        "b1": rng.integers(-9, 9, out),
        "t2": limits,
        "w2": rng.integers(-3, 4, (5, out, 1, 1) if conv_like else (out, 5)),
    }
    v = {k: a.astype(np.float32) for k, a in v.items()}
    given = {"pads": [1, 1, 1, 1]} if conv_like else {}
    nodes = [
        threshold("x", "t1", "a", out_scale=0.5),
        helper.make_node(layer, ["a", "w1", *(["b1"] if layer != "MatMul" else [])], ["b"], **given),
        threshold("b", "t2", "c", out_scale=0.25, out_bias=-1.0),
        helper.make_node(layer, ["c", "w2"], ["y"]),
    ]
    shape, last = (["N", 16, 6, 5], ["N", 5, 6, 5]) if conv_like else (["N", 16], ["N", 5])
    return file(nodes, shape, last, v), v


@pytest.mark.parametrize("layer", ["Conv", "Gemm", "MatMul"])
@pytest.mark.parametrize(("kind", "table"), [("uniform", False), ("close", True), ("far", None)])
def test_thresholds_behind_a_layer_become_its_requantization(kind: str, table: bool | None, layer: str) -> None:
    model, v = folded(kind, layer)
    program = compile_program(capture(model))
    verify(program)
    ops = [n.op for n in program.nodes]
    behind = ops[ops.index("qconv" if layer == "Conv" else "qlinear") :]
    assert ("where" in behind) == (table is None)  # thresholds too far apart for a line or a table stay floats
    assert ("lut" in behind) == (table is True)
    x = np.random.default_rng(3).normal(0, 1, (40, 16, 6, 5) if layer == "Conv" else (400, 16)).astype(np.float32)

    def apply(a: Array, w: Array, pad: int) -> Array:
        if layer != "Conv":
            return a.astype(np.float64) @ w.astype(np.float64)
        made: Array = torch.nn.functional.conv2d(torch.from_numpy(a), torch.from_numpy(w), padding=pad).numpy()
        return made

    sums = apply(counted(x, v["t1"], 0.5).astype(np.float32), v["w1"], 1)
    if layer != "MatMul":
        sums = sums + v["b1"].reshape(-1, *[1] * (sums.ndim - 2))
    c = counted(sums, v["t2"], 0.25, -1.0).astype(np.float32)
    assert len(np.unique(c)) > 2
    want = apply(c, v["w2"], 0)
    for got in (interpreter.run(program, {"x": x})["y"], engine.load(program).run({"x": x})["y"]):
        assert np.array_equal(got, want)


@unhurried
@given(st.integers(1, 15), st.integers(0, 2**32 - 1), st.floats(0.02, 3000), st.integers(1, 2**24))
def test_every_uniform_quantizer_has_a_line(levels: int, seed: int, step: float, bound: int) -> None:
    rng = np.random.default_rng(seed)
    first = rng.uniform(-bound, bound, 8)
    steps = np.ceil(first + step * np.arange(levels)[:, None]).astype(np.int64).clip(-bound, bound + 1)
    found = fitted(steps, bound)
    assert found is not None
    mult, offset = found
    acc = np.concatenate([steps, steps - 1]).clip(-bound, bound)
    want = (acc[None] >= steps[:, None]).sum(0)
    reals = acc * mult.astype(np.float64) + offset
    assert np.array_equal(np.rint(reals).clip(0, levels), want)


@unhurried
@given(st.integers(0, 2**32 - 1))
def test_whole_thresholds_are_the_first_to_reach(seed: int) -> None:
    rng = np.random.default_rng(seed)
    mult, bias = rng.uniform(1e-4, 2, 4).astype(np.float32), rng.normal(0, 3, 4).astype(np.float32)
    limits = np.sort(rng.normal(0, 300, (3, 4)), axis=0).astype(np.float32)
    found = whole_thresholds(limits, mult, bias, 500)
    acc = np.arange(-500, 501)[:, None]
    want = (requantize_f32(np.broadcast_to(acc, (1001, 4)), mult, bias)[:, None] < limits).sum(0) - 500
    assert np.array_equal(found, want)
