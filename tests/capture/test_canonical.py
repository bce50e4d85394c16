"""One canonical form: old opsets, patterns, data types, constants, names, and the list of what is not supported."""

from __future__ import annotations

import numpy as np
import onnx
import onnx_ir as ir
import pytest
from onnx import TensorProto, helper, numpy_helper

from netsuke.capture import capture
from netsuke.capture.costs import layer_costs
from netsuke.capture.graph import array_of, attr, dims_of
from netsuke.core.errors import FileError, UnsupportedError, UsageError

RNG = np.random.default_rng(2)


def model(
    nodes: list[onnx.NodeProto],
    x: list[object],
    y: list[object],
    constants: dict[str, np.ndarray] | None = None,
    opset: int = 11,
    kind: int = TensorProto.FLOAT,
) -> onnx.ModelProto:
    graph = helper.make_graph(
        nodes,
        "g",
        [helper.make_tensor_value_info("x", kind, x)],
        [helper.make_tensor_value_info("y", kind, y)],
        [numpy_helper.from_array(a, n) for n, a in (constants or {}).items()],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=7)


def run(proto: onnx.ModelProto, feed: np.ndarray) -> np.ndarray:
    onnxruntime = pytest.importorskip("onnxruntime")
    session = onnxruntime.InferenceSession(proto.SerializeToString(), providers=["CPUExecutionProvider"])
    return np.asarray(session.run(None, {session.get_inputs()[0].name: feed})[0])


def agrees(proto: onnx.ModelProto, feed: np.ndarray, atol: float = 1e-5) -> ir.Model:
    """The canonical graph computes what the original does."""
    graph = capture(proto)
    np.testing.assert_allclose(run(ir.to_proto(graph), feed), run(proto, feed), atol=atol)
    return graph


def ops(graph: ir.Model) -> list[str]:
    return [node.op_type for node in graph.graph]


def test_opset_11_attributes_become_inputs() -> None:
    nodes = [
        helper.make_node("Unsqueeze", ["x"], ["a"], axes=[1]),
        helper.make_node("ReduceSum", ["a"], ["b"], axes=[3], keepdims=1),
        helper.make_node("Squeeze", ["b"], ["c"], axes=[1]),
        helper.make_node("Split", ["x"], ["s", "t"], axis=1, split=[1, 2]),
        helper.make_node("ReduceMean", ["t"], ["m"], axes=[1], keepdims=1),
        helper.make_node("Add", ["c", "s"], ["n"]),
        helper.make_node("Mul", ["n", "m"], ["y"]),
    ]
    graph = agrees(model(nodes, ["N", 3, 4], ["N", 3, 4]), RNG.standard_normal((2, 3, 4)).astype(np.float32))
    assert graph.graph.opset_imports[""] == 24
    for node in graph.graph:
        assert "axes" not in node.attributes
        assert "split" not in node.attributes


@pytest.mark.parametrize("axis", [1, 2, -1])
def test_softmax_before_opset_13_runs_over_all_later_dimensions(axis: int) -> None:
    nodes = [helper.make_node("Softmax", ["x"], ["y"], axis=axis)]
    agrees(model(nodes, ["N", 3, 4], ["N", 3, 4]), RNG.standard_normal((2, 3, 4)).astype(np.float32))


def test_clip_and_pad_of_opset_10_and_upsample_of_opset_9() -> None:
    nodes = [
        helper.make_node("Clip", ["x"], ["a"], min=-0.5, max=0.5),
        helper.make_node("Pad", ["a"], ["b"], pads=[0, 0, 1, 0, 0, 0, 0, 2], value=0.25),
        helper.make_node("Upsample", ["b", "s"], ["y"], mode="nearest"),
    ]
    constants = {"s": np.asarray([1, 1, 2, 2], np.float32)}
    proto = model(nodes, ["N", 3, 4, 4], ["N", 3, "A", "B"], constants, opset=9)
    assert ops(agrees(proto, RNG.standard_normal((2, 3, 4, 4)).astype(np.float32))) == ["Clip", "Pad", "Resize"]


def test_too_old_opsets_are_refused() -> None:
    with pytest.raises(UnsupportedError, match="opset too old"):
        capture(model([helper.make_node("Relu", ["x"], ["y"])], [2], [2], opset=7))


@pytest.mark.parametrize("kind", [np.float16, np.float64])
def test_other_float_types_become_float32(kind: type) -> None:
    proto_kind = helper.np_dtype_to_tensor_dtype(np.dtype(kind))
    weight = RNG.standard_normal((4, 5)).astype(kind)
    proto = model([helper.make_node("MatMul", ["x", "w"], ["y"])], ["N", 4], ["N", 5], {"w": weight}, 13, proto_kind)
    graph = capture(proto)
    feed = RNG.standard_normal((3, 4)).astype(kind)
    got = run(ir.to_proto(graph), feed.astype(np.float32))
    np.testing.assert_allclose(
        got, feed.astype(np.float64) @ weight.astype(np.float64), atol=2e-2 if kind == np.float16 else 1e-5
    )
    assert graph.graph.inputs[0].dtype == ir.DataType.FLOAT


def test_batchnorm_folds_in_binary64() -> None:
    values = {n: RNG.random(4).astype(np.float32) + 0.5 for n in ("g", "b", "m", "v")}
    weight = RNG.standard_normal((4, 3, 3, 3)).astype(np.float32)
    nodes = [
        helper.make_node("Conv", ["x", "w"], ["c"], name="stem"),
        helper.make_node("BatchNormalization", ["c", "g", "b", "m", "v"], ["y"], epsilon=1e-3),
    ]
    proto = model(nodes, ["N", 3, 6, 6], ["N", 4, 4, 4], values | {"w": weight}, 15)
    graph = agrees(proto, RNG.standard_normal((2, 3, 6, 6)).astype(np.float32))
    assert ops(graph) == ["Conv"]
    scale = values["g"].astype(np.float64) / np.sqrt(values["v"].astype(np.float64) + np.float64(np.float32(1e-3)))
    wanted = (weight.astype(np.float64) * scale[:, None, None, None]).astype(np.float32)
    np.testing.assert_array_equal(array_of(graph.graph[0].inputs[1]), wanted)


def test_identity_dropout_and_constant_arithmetic_vanish() -> None:
    nodes = [
        helper.make_node("Constant", [], ["one"], value=numpy_helper.from_array(np.float32([1.0]))),
        helper.make_node("Add", ["one", "one"], ["two"]),
        helper.make_node("Identity", ["x"], ["a"]),
        helper.make_node("Dropout", ["a"], ["b"]),
        helper.make_node("Mul", ["b", "two"], ["c"]),
        helper.make_node("Mul", ["c", "one"], ["y"]),
    ]
    graph = capture(model(nodes, ["N", 4], ["N", 4]))
    assert ops(graph) == ["Mul"]
    assert graph.graph.outputs[0].name == "y"


def test_branch_with_a_constant_condition_is_taken() -> None:
    then = helper.make_graph(
        [helper.make_node("Relu", ["x"], ["t"])], "then", [], [helper.make_tensor_value_info("t", 1, None)]
    )
    other = helper.make_graph(
        [helper.make_node("Neg", ["x"], ["e"])], "else", [], [helper.make_tensor_value_info("e", 1, None)]
    )
    nodes = [helper.make_node("If", ["c"], ["y"], then_branch=then, else_branch=other)]
    assert ops(capture(model(nodes, ["N", 4], ["N", 4], {"c": np.asarray(False)}, 16))) == ["Neg"]


def test_functions_are_inlined() -> None:
    body = onnx.parser.parse_model(
        '<ir_version: 10, opset_import: ["" : 18, "own" : 1]> g (float[N,4] x) => (float[N,4] y) { y = own.twice(x) } '
        '<domain: "own", opset_import: ["" : 18]> twice (a) => (b) { c = Relu(a) b = Add(c, c) }'
    )
    assert ops(capture(body)) == ["Relu", "Add"]


def test_everything_unsupported_is_listed_in_one_error() -> None:
    nodes = [
        helper.make_node("NonZero", ["x"], ["a"], name="first"),
        helper.make_node("Cast", ["a"], ["b"], to=1),
        helper.make_node("ReduceSum", ["b"], ["s"], keepdims=0),
        helper.make_node("Hardmax", ["x"], ["h"], name="second"),
        helper.make_node("Mul", ["h", "s"], ["m"]),
        helper.make_node("Frob", ["m"], ["y"], name="third", domain="com.example"),
    ]
    proto = model(nodes, ["N", 4], ["N", 4], opset=17)
    proto.opset_import.append(helper.make_opsetid("com.example", 1))
    with pytest.raises(UnsupportedError) as caught:
        capture(proto)
    assert [p.where for p in caught.value.problems] == ["first", "second", "third"]
    text = str(caught.value)
    assert "com.example::Frob" in text
    assert "['N', 4]" in text
    assert all(p.hint for p in caught.value.problems)


def test_shapes_declared_by_the_file_are_not_believed() -> None:
    proto = model(
        [helper.make_node("Relu", ["x"], ["a"]), helper.make_node("Neg", ["a"], ["y"])], ["N", 4], ["N", 4], opset=17
    )
    proto.graph.value_info.append(helper.make_tensor_value_info("a", TensorProto.FLOAT, [7, 7, 7]))
    graph = capture(proto)
    assert dims_of(graph.graph[0].outputs[0]) == ["N", 4]


def test_contradiction_of_shapes_is_an_error() -> None:
    with pytest.raises(FileError, match="contradict"):
        capture(
            model(
                [helper.make_node("MatMul", ["x", "w"], ["y"])], ["N", 4], ["N", 5], {"w": np.ones((3, 5), np.float32)}
            )
        )


def test_equal_arithmetic_on_free_sizes_has_equal_names() -> None:
    weight = RNG.standard_normal((3, 3, 3, 3)).astype(np.float32)
    nodes = [
        helper.make_node("Conv", ["x", "w"], ["a"], strides=[2, 2], pads=[1, 1, 1, 1]),
        helper.make_node("MaxPool", ["x"], ["b"], kernel_shape=[3, 3], strides=[2, 2], pads=[1, 1, 1, 1]),
        helper.make_node("Conv", ["a", "w"], ["c"], pads=[1, 1, 1, 1]),
        helper.make_node("Add", ["b", "c"], ["y"]),
    ]
    graph = capture(model(nodes, ["N", 3, "H", "W"], ["N", 3, "A", "B"], {"w": weight}, 17))
    assert dims_of(graph.graph.outputs[0]) == ["N", 3, "(H-1)//2+1", "(W-1)//2+1"]
    assert len({tuple(dims_of(node.outputs[0]) or ()) for node in graph.graph}) == 1


def test_costs_of_layers() -> None:
    nodes = [
        helper.make_node("Conv", ["x", "w"], ["a"], strides=[2, 2], name="conv"),
        helper.make_node("GlobalAveragePool", ["a"], ["p"]),
        helper.make_node("Flatten", ["p"], ["f"]),
        helper.make_node("Gemm", ["f", "v", "b"], ["y"], transB=1, name="head"),
    ]
    constants = {"w": np.ones((8, 3, 3, 3)), "v": np.ones((5, 8)), "b": np.ones(5)}
    graph = capture(
        model(nodes, ["N", 3, "H", "W"], ["N", 5], {k: a.astype(np.float32) for k, a in constants.items()}, 17)
    )
    conv, head = layer_costs(graph, {"H": 9, "W": 9})
    assert (conv.name, conv.macs, conv.parameters) == ("conv", 8 * 4 * 4 * 27, 216)
    assert (head.macs, head.parameters, head.parameter_bytes) == (40, 45, 180)
    assert layer_costs(graph)[0].macs is None


def test_wrong_uses_are_named() -> None:
    with pytest.raises(FileError, match="resnet18"):
        capture("resnet_18")
    with pytest.raises(UsageError, match="not a network"):
        capture(3)
    proto = model([helper.make_node("Relu", ["x"], ["y"])], ["N", 4], ["N", 4], opset=17)
    with pytest.raises(UsageError, match="does not fit"):
        capture(proto, shape=(1, 5))
    assert dims_of(capture(proto, shape=(1, 4)).graph.inputs[0]) == ["N", 4]


def test_the_given_model_is_not_changed() -> None:
    proto = model([helper.make_node("Softmax", ["x"], ["y"])], ["N", 3, 4], ["N", 3, 4])
    before = proto.SerializeToString()
    loaded = ir.from_proto(proto)
    capture(loaded)
    assert [n.op_type for n in loaded.graph] == ["Softmax"]
    assert attr(loaded.graph[0], "axis") is None
    capture(proto)
    assert proto.SerializeToString() == before


def test_capturing_twice_changes_nothing() -> None:
    nodes = [helper.make_node("Relu", ["x"], ["a"], name="n0"), helper.make_node("Exp", ["a"], ["y"])]
    once = capture(model(nodes, ["N", 4], ["N", 4], opset=17))
    twice = capture(once)
    assert ir.to_proto(twice).SerializeToString() == ir.to_proto(once).SerializeToString()


def test_equal_constants_become_one_and_unequal_ones_stay() -> None:
    from netsuke.capture.clean import merge_equal_constants

    big = RNG.standard_normal((40, 50)).astype(np.float32)
    other = big.copy()
    other[-1, -2] += 1  # differs where no sample of 64 elements looks
    signed = np.array([0.0, 1.0], np.float32)
    arrays = {"a": big, "b": big.copy(), "c": other, "d": signed, "e": -signed * np.float32([1, -1])}
    values = [ir.Value(name=n, const_value=ir.tensor(a, name=n)) for n, a in arrays.items()]
    nodes = [ir.node("Identity", [v]) for v in values]
    graph = ir.Graph([], [n.outputs[0] for n in nodes], nodes=nodes, initializers=values)
    assert merge_equal_constants(graph) == 1
    assert [n.inputs[0].name for n in nodes] == ["a", "a", "c", "d", "e"]  # -0.0 and 0.0 are different bytes


def test_attributes_of_emitted_nodes_have_the_types_of_onnx() -> None:
    from netsuke.capture.graph import emit

    graph = capture(model([helper.make_node("Relu", ["x"], ["y"])], ["N", 3], ["N", 3])).graph
    given = {"i": 2, "b": True, "f": 0.5, "s": "t", "l": [1, 2], "g": (0.5, 1.5), "n": None, "e": []}
    node = emit(graph[0], "Op", [graph.inputs[0]], given, domain="netsuke").producer()
    assert node is not None
    expected = ir.node("Op", [graph.inputs[0]], given, domain="netsuke")
    assert {k: (a.type, a.value) for k, a in node.attributes.items()} == {
        k: (a.type, a.value) for k, a in expected.attributes.items()
    }
