"""Single rewrites: a graph as text in, the operators and permutations that are left out."""

from __future__ import annotations

import onnx_ir as ir
import pytest
from graphs import build

from netsuke.capture import capture
from netsuke.capture.graph import attr
from netsuke.passes.fuse_float import fuse_float
from netsuke.passes.lower import RULES, lower
from netsuke.passes.qdq_move import move_qdq
from netsuke.passes.qdq_normalize import normalize_qdq
from netsuke.passes.reshape_groups import reshape_groups
from netsuke.passes.sink_transposes import sink_transposes
from netsuke.passes.views import simplify_views

HEADER = '<ir_version: 10, opset_import: ["" : 24, "netsuke" : 1]>'


def parse(inputs: str, body: str, outputs: str, values: str = "") -> ir.Graph:
    """A graph in the middle of the pipeline: `n.op` stands for an operator of the netsuke domain."""
    text = body.replace("n.", "netsuke.")
    inner = f"<{values}>" if values else ""
    return ir.from_onnx_text(f"{HEADER} g ({inputs}) => ({outputs}) {inner} {{ {text} }}").graph


def written(graph: ir.Graph) -> str:
    """Operators in order, with the permutation of transposes."""
    words = []
    for node in graph:
        perm = attr(node, "perm")
        words.append(node.op_type + ("" if perm is None else "(" + ",".join(map(str, perm)) + ")"))
    return " ".join(words)


def lowered(inputs: str, body: str, outputs: str) -> ir.Graph:
    """An ONNX graph after capture and one-to-one lowering."""
    graph = capture(build(inputs, body, outputs)).graph
    lower(graph)
    return graph


@pytest.mark.parametrize(
    ("body", "left"),
    [
        ("a = Transpose<perm=[0,2,3,1]>(x) y = Transpose<perm=[0,3,1,2]>(a)", "identity"),
        ("a = Transpose<perm=[0,2,3,1]>(x) b = Relu(a) y = Transpose<perm=[0,3,1,2]>(b)", "unary"),
        ("a = Transpose<perm=[0,2,3,1]>(x) y = Relu(a)", "unary transpose(0,2,3,1)"),
        ("a = Transpose<perm=[0,2,3,1]>(x) b = Transpose<perm=[0,2,1,3]>(a) y = Relu(b)", "unary transpose(0,3,2,1)"),
        ("a = Transpose<perm=[0,2,3,1]>(x) b = Relu(a) c = Add(a, b) y = Transpose<perm=[0,3,1,2]>(c)", "unary binary"),
        ("a = Transpose<perm=[0,2,3,1]>(x) b = Concat<axis=3>(a, a) y = Transpose<perm=[0,3,1,2]>(b)", "concat"),
        ("a = Transpose<perm=[0,2,3,1]>(x) b = Softmax<axis=-1>(a) y = Transpose<perm=[0,3,1,2]>(b)", "softmax"),
        (
            "a = Transpose<perm=[0,2,3,1]>(x) b, c = Split<axis=3, num_outputs=2>(a) d = Mul(b, c) "
            "y = Transpose<perm=[0,3,1,2]>(d)",
            "split binary",
        ),
    ],
)
def test_transposes_sink_and_cancel(body: str, left: str) -> None:
    graph = lowered("float[2,4,6,8] x", body, "float[A,B,C,D] y")
    for _ in range(3):
        sink_transposes(graph)
        simplify_views(graph)
    assert written(graph) == left


def test_reduction_without_keepdims_leaves_the_order_behind_the_transpose() -> None:
    body = "c = Constant<value_ints=[1]>() a = Transpose<perm=[0,3,1,2]>(x) y = ReduceSum<keepdims=0>(a, c)"
    graph = lowered("float[2,4,6,8] x", body, "float[A,B,C] y")
    sink_transposes(graph)
    assert written(graph) == "reduce"
    assert attr(graph[0], "axes") == [3]


@pytest.mark.parametrize(
    ("before", "target", "groups"),
    [
        ("2,3,4,5", "2,3,20", [((0,), (0,)), ((1,), (1,)), ((2, 3), (2,))]),
        ("2,12,5", "2,3,4,5", [((0,), (0,)), ((1,), (1, 2)), ((2,), (3,))]),
        ("N,8,H,W", "0,2,4,0,-1", None),
        ("N,8,H,W", "0,8,-1", [((0,), (0,)), ((1,), (1,)), ((2, 3), (2,))]),
        ("6,4", "4,6", [((0, 1), (0, 1))]),
    ],
)
def test_groups_of_a_reshape(before: str, target: str, groups: object) -> None:
    values = ", ".join(target.split(","))
    size = target.count(",") + 1
    graph = parse(
        f"float[{before}] x",
        "y = n.reshape(x, s)",
        f"float[{','.join('ABCDE'[:size])}] y",
        f"int64[{size}] s = {{{values}}}",
    )
    graph[0].outputs[0].shape = None
    found = reshape_groups(graph[0])
    assert found is not None
    if groups is not None:
        assert [(g.inner, g.outer) for g in found] == groups


def test_dequantize_moves_down_and_meets_quantize() -> None:
    body = (
        "q = QuantizeLinear(x, s, z) d = DequantizeLinear(q, s, z) f = Flatten(d) r = QuantizeLinear(f, s, z) "
        "e = DequantizeLinear(r, s, z) y = Relu(e)"
    )
    graph = parse("float[2,3,4] x", body, "float[2,12] y", "float s = {0.5}, uint8 z = {3}")
    normalize_qdq(graph)
    move_qdq(graph)
    assert written(graph) == "quantize Flatten dequantize Relu"


def test_add_and_activation_go_into_the_later_layer() -> None:
    body = (
        'a = n.linear(x, w) b = n.unary<fn="relu">(a) c = n.linear(b, v) d = n.binary<fn="add">(c, a) '
        'y = n.unary<fn="gelu">(d)'
    )
    graph = parse("float[2,3] x, float[3,3] w, float[3,3] v", body, "float[2,3] y")
    for node in graph:
        for out in node.outputs:
            out.type, out.shape = ir.TensorType(ir.DataType.FLOAT), ir.Shape([2, 3])
    fuse_float(graph)
    assert written(graph) == "linear unary linear"
    last = graph[2]
    assert attr(last, "act") == "gelu"
    assert last.inputs[3] is graph[0].outputs[0]


def test_every_supported_operator_has_a_lowering() -> None:
    from netsuke.capture.supported import SUPPORTED

    handled_before = {"BatchNormalization", "DequantizeLinear", "If", "QuantizeLinear"}
    assert set(SUPPORTED) - handled_before == set(RULES)
