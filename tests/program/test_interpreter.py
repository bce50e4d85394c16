"""Feeds, taps and errors of the interpreter and of the emulation, which share them."""

import numpy as np
import pytest

from netsuke.core.errors import FileError, UsageError
from netsuke.program import Node, Port, Program, Value
from netsuke.program.emulate import Emulation
from netsuke.program.interpreter import run


def program() -> Program:
    nodes = [
        Node("quantize", "q", ["x"], ["a"], {"scale": 0.5, "zero": 10}),
        Node("lut", "l", ["a", "t"], ["b"], {}),
        Node("dequantize", "d", ["b"], ["y"], {"scale": 0.5, "zero": 10}),
    ]
    values = {
        "a": Value("u8", 0.5, 10, "input_q"),
        "b": Value("u8", 0.5, 10, "twice"),
        "y": Value("f32", source="twice"),
    }
    table = np.arange(256, dtype=np.uint8)[::-1].copy()
    return Program("p", [Port("x", "f32", ("N", 2))], [Port("y", "f32", ("N", 2))], nodes, {"t": table}, values)


X = np.float32([[1, 2], [3, 4]])


@pytest.mark.parametrize("runner", [run, lambda p, feeds, taps=(): Emulation(p).run(feeds, taps)])
class TestBoth:
    def test_taps_by_name_and_by_source(self, runner):
        found = runner(program(), {"x": X}, ["input_q", "a", "x", "b"])
        assert list(found) == ["y", "input_q", "a", "x", "b"]
        assert found["a"].dtype == np.uint8
        assert found["a"].tolist() == found["input_q"].tolist() == [[12, 14], [16, 18]]
        assert found["y"].tolist() == [[(255 - q - 10) / 2 for q in row] for row in found["a"].tolist()]

    def test_unknown_and_ambiguous_taps_are_listed_together(self, runner):
        with pytest.raises(UsageError, match="did you mean input_q") as caught:
            runner(program(), {"x": X}, ["inputq", "twice"])
        assert "several values have this source" in str(caught.value)

    def test_wrong_feeds_are_listed_together(self, runner):
        with pytest.raises(UsageError) as caught:
            runner(program(), {"z": X, "x": X[:, :1].astype(np.float64)})
        assert [p.what for p in caught.value.problems] == ["no such input", "wrong dtype", "wrong shape"]
        with pytest.raises(UsageError, match="no value given"):
            runner(program(), {})


def test_a_free_dimension_has_one_size():
    two = program()
    two.inputs.append(Port("z", "f32", ("N", 3)))
    run(two, {"x": X, "z": np.zeros((2, 3), np.float32)})
    with pytest.raises(UsageError, match=r"wrong shape.*\[4, 3\].*\[2, 3\]"):
        run(two, {"x": X, "z": np.zeros((4, 3), np.float32)})


def test_emulation_is_a_module_with_gradients():
    import torch

    net = Emulation(program())
    x = torch.from_numpy(X).requires_grad_()
    net(x)["y"]
    codes = net({"x": x}, ["a"])["a"]
    codes.sum().backward()
    assert x.grad.tolist() == [[2.0, 2.0], [2.0, 2.0]]
    assert net.constant("t").dtype == torch.float32
    assert sorted(net.state_dict()) == ["c0"]


def test_outputs_must_have_the_declared_shape():
    wrong = program()
    wrong.outputs = [Port("y", "f32", ("N", 3))]
    with pytest.raises(FileError, match="output 'y'  declared with another shape"):
        run(wrong, {"x": X})
    wrong.outputs = [Port("y", "f32", ("N", "N"))]
    run(wrong, {"x": X})
    with pytest.raises(FileError, match="declared with another shape"):
        run(wrong, {"x": X[:1]})
