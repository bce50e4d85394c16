"""Every rule of docs/format.md that the verifier holds, each with a program that breaks only it."""

from typing import Any

import numpy as np
import pytest

from netsuke.core.errors import FileError
from netsuke.program import Node, Port, Program, Value, verify
from netsuke.program.opset import OPERATORS


def qconv(**attrs: Any) -> Program:
    w = np.full((4, 3, 3, 2), 100, np.int8)
    base = {"strides": [1, 1], "pads": [0, 0, 0, 0], "x_zero": 0, "acc_bound": 3 * 3 * 2 * 100 * 255}
    inputs = ["x", "w", "m", "", "", ""]
    node = Node("qconv", "c", inputs, ["y"], {**base, **attrs})
    constants = {"w": w, "m": np.ones(4, np.float32)}
    return Program("p", [Port("x", "u8", ("N", 8, 8, 2))], [Port("y", "u8", ("N", 6, 6, 4))], [node], constants)


def single(op: str, inputs: list[str], attrs: dict[str, Any], dtypes: dict[str, str], out: str = "f32") -> Program:
    """One node; names that begin with k are i64 constants."""
    ports = [Port(name, dtype, ("a", "b", "c", "d")) for name, dtype in dtypes.items()]
    constants = {n: np.array([1, 2], np.int64) for n in inputs if n.startswith("k")}
    return Program("p", ports, [Port("y", out, ("e",))], [Node(op, "n", inputs, ["y"], attrs)], constants)


def test_good_programs_pass():
    verify(qconv())
    verify(single("unary", ["x"], {"fn": "clip", "alpha": 0.0}, {"x": "f32"}))
    verify(single("reshape", ["x", "k"], {}, {"x": "f32"}))


@pytest.mark.parametrize(
    ("attrs", "message"),
    [
        ({"strides": [1]}, "does not have 2 elements"),
        ({"strides": [0, 1]}, "strides is out of range"),
        ({"strides": 1}, "is not a list"),
        ({"x_zero": 1.5}, "is not an integer"),
        ({"x_zero": True}, "is a bool"),
        ({"x_zero": 256}, "out of range"),
        ({"lo": 9, "hi": 3}, "lo is above hi"),
        ({"r_mult": float("nan")}, "finite"),
        ({"r_mult": 1e39}, "finite"),
        ({"out": "i32"}, "words allowed"),
        ({"flo": 0.0}, "belong to f32 output"),
        ({"stride": 1}, "did you mean strides"),
        ({"groups": 3}, "not divisible by groups"),
        ({"acc_bound": 1000}, "acc_bound is smaller"),
        ({"x_zero": 255, "acc_bound": 458999}, "acc_bound is smaller"),
    ],
)
def test_attributes(attrs, message):
    with pytest.raises(FileError, match=message):
        verify(qconv(**attrs))


def test_accumulator_that_can_overflow_is_refused_by_name():
    program = qconv(acc_bound=2**31 - 1)
    program.constants["w"] = np.full((4, 300, 300, 2), 127, np.int8)
    with pytest.raises(FileError, match=r"node 0 qconv 'c'  an accumulator can leave int32.*channel 0: 5829300000"):
        verify(program)


def test_bound_uses_the_codes_the_producer_states():
    program = qconv(acc_bound=3 * 3 * 2 * 100 * 15)
    program.inputs = [Port("f", "f32", ("N", 8, 8, 2))]
    quantize = Node("quantize", "q", ["f"], ["q"], {"scale": 1.0, "zero": 0, "hi": 15})
    program.nodes[:0] = [quantize, Node("transpose", "t", ["q"], ["x"], {"perm": [0, 2, 1, 3]})]
    verify(program)
    quantize.attrs["hi"] = 16
    with pytest.raises(FileError, match="acc_bound is smaller"):
        verify(program)


def broken(change: Any) -> Program:
    program = qconv()
    change(program)
    return program


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda p: p.nodes[0].inputs.__setitem__(0, "z"), "not an input, a constant or an earlier output"),
        (lambda p: p.nodes[0].inputs.__setitem__(0, ""), "required input is absent"),
        (lambda p: p.nodes[0].inputs.__setitem__(1, "x"), "must be a constant"),
        (lambda p: p.nodes[0].inputs.pop(), "wrong number of inputs"),
        (lambda p: p.nodes[0].outputs.append("y2"), "wrong number of outputs"),
        (lambda p: p.nodes[0].outputs.__setitem__(0, "x"), "defined twice"),
        (lambda p: p.nodes.append(p.nodes[0]), "node names must be unique"),
        (lambda p: setattr(p.nodes[0], "op", "qcon"), "did you mean qconv"),
        (lambda p: p.constants.update(extra=np.zeros(1, np.float32)), "no node uses this constant"),
        (lambda p: p.constants.update(m=np.ones(4)), "unknown dtype of a constant"),
        (lambda p: p.constants.update(m=np.ones(3, np.float32)), "wrong shape of mult"),
        (
            lambda p: (p.nodes[0].inputs.__setitem__(4, "b"), p.constants.update(b=np.zeros(3, np.int32))),
            "wrong shape of acc_bias",
        ),
        (lambda p: p.constants.update(m=-np.ones(4, np.float32)), "too small"),
        (lambda p: p.constants.update(m=np.full(4, np.nan, np.float32)), "NaN or infinity"),
        (lambda p: p.constants.update(w=np.zeros((4, 0, 3, 2), np.int8)), "wrong shape of w"),
        (lambda p: p.outputs.append(Port("x", "u8", ())), "output of a node"),
        (lambda p: p.outputs.clear(), "no output"),
        (lambda p: p.outputs.__setitem__(0, Port("y", "f32", ())), "wrong dtype of an output"),
        (lambda p: p.outputs.append(p.outputs[0]), "listed twice"),
        (lambda p: p.values.update(x=Value("u8")), "no node makes"),
        (lambda p: p.values.update(y=Value("f32")), "wrong dtype of a value"),
        (lambda p: p.bf16.add("w"), "unknown dtype of a constant"),
        (lambda p: p.inputs.__setitem__(0, Port("x", "bf16", ("N", 8, 8, 2))), "unknown dtype of a port"),
    ],
)
def test_structure(change, message):
    with pytest.raises(FileError, match=message):
        verify(broken(change))


F, Q = {"x": "f32"}, {"x": "u8"}
POOL = {"kernel": [2, 2], "strides": [2, 2], "pads": [0, 0, 0, 0]}


@pytest.mark.parametrize(
    ("op", "inputs", "attrs", "dtypes", "out", "message"),
    [
        ("unary", ["x"], {"fn": "relu", "alpha": 1.0}, F, "f32", "relu takes no alpha"),
        ("unary", ["x"], {"fn": "not"}, F, "bool", "wrong dtype for not"),
        ("unary", ["x"], {"fn": "clip", "alpha": 2.0, "beta": 1.0}, F, "f32", "alpha is above beta"),
        ("unary", ["x"], {"fn": "relu", "quant_scale": 1.0}, F, "u8", "belong together"),
        ("unary", ["x"], {"fn": "isnan", "quant_scale": 1.0, "quant_zero": 0}, F, "u8", "cannot be quantized"),
        ("binary", ["x", "x"], {"fn": "and"}, F, "f32", "wrong dtype for and"),
        ("binary", ["x", "z"], {"fn": "add"}, {**F, "z": "i64"}, "f32", "z is i64"),
        ("reduce", ["x"], {"fn": "any", "axes": []}, F, "f32", "wrong dtype for any"),
        ("maxpool", ["x"], {**POOL, "pads": [2, 0, 0, 0]}, F, "f32", "padding is as large as the window"),
        ("transpose", ["x"], {"perm": [0, 0, 1, 2]}, F, "f32", "not a permutation"),
        ("resize", ["x", "", ""], {}, F, "f32", "exactly one of sizes and scales"),
        ("pad", ["x", "kneg", ""], {}, F, "f32", "none negative"),
        ("reshape", ["x", "z"], {}, {**F, "z": "i64"}, "f32", "constant or computed from shapes"),
        ("concat", ["x", "z"], {"axis": 0}, {**F, "z": "u8"}, "f32", "z is u8"),
        ("where", ["c", "x", "z"], {}, {"c": "bool", **F, "z": "u8"}, "f32", "z is u8"),
        ("quantize", ["x"], {"scale": 0.0, "zero": 0}, F, "u8", "not positive"),
        ("lut", ["x", "k"], {}, Q, "i64", "wrong dtype"),
        ("constant_of_shape", ["k"], {"value": 1.5, "dtype": "i64"}, {}, "i64", "not a number of i64"),
    ],
)
def test_operator_rules(op, inputs, attrs, dtypes, out, message):
    program = single(op, inputs, attrs, dtypes, out)
    if "kneg" in program.constants:
        program.constants["kneg"] = np.array([0, 0, 0, -1, 0, 0, 0, 0], np.int64)
    with pytest.raises(FileError, match=message):
        verify(program)


def test_all_problems_are_listed_at_once():
    program = qconv(strides=[0, 0], x_zero=999)
    program.constants["unused"] = np.zeros(1, np.float32)
    with pytest.raises(FileError) as caught:
        verify(program)
    assert len(caught.value.problems) == 3
    assert all("node 0 qconv 'c'" in str(p) or "unused" in str(p) for p in caught.value.problems)


def test_shapes_computed_from_shapes_are_known():
    nodes = [
        Node("shape", "s", ["x"], ["sx"], {}),
        Node("gather", "g", ["sx", "k"], ["d"], {"axis": 0}),
        Node("reshape", "r", ["x", "d"], ["y"], {}),
    ]
    constants = {"k": np.array([1, 0, 2, 3], np.int64)}
    program = Program("p", [Port("x", "f32", (1, 2, 3, 4))], [Port("y", "f32", (2, 1, 3, 4))], nodes, constants)
    verify(program)


def test_every_operator_has_a_row_an_interpreter_rule_and_an_emulation_rule():
    from netsuke.program.emulation import RULES as EMULATED
    from netsuke.program.reference import RULES

    assert set(OPERATORS) == set(RULES) == set(EMULATED)
