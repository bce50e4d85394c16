"""A whole residual network with dyadic requantization holds no float multiplier between its codes."""

import numpy as np

from methods.quantize.graphs import Build, data
from netsuke.capture import capture
from netsuke.engine import load
from netsuke.methods.quantize import ptq
from netsuke.passes import compile_program
from netsuke.pipeline.runner import EngineRunner
from netsuke.program import interpreter, verify
from netsuke.program.emulate import Emulation


def network(shape):
    b = Build(shape=shape)
    stem = b.op("Relu", b.conv("x", 8, 4, name="stem"), name="stem_relu")
    body = b.op("Relu", b.conv(stem, 8, 8, name="body"), name="body_relu")
    total = b.op("Add", body, stem, name="sum")  # behind the activation: an add that stands alone
    flat = b.op("Flatten", b.op("GlobalAveragePool", total, name="gap"), name="flat")
    return capture(b.model(b.linear(flat, 5, 8, "head")))


def compiled(shape):
    model, calib = network(shape), data(32)
    plan = ptq.make_plan(model, recipe="cpu-int8-dyadic", calib=calib, runner=EngineRunner(1), effort="fast")
    return compile_program(ptq.quantize(model, plan=plan, calib=calib, runner=EngineRunner(1)))


def test_adds_and_means_are_integer_multiplications_and_shifts():
    program = compiled(("N", 4, 8, 8))
    verify(program)
    kinds = [n.op for n in program.nodes]
    assert kinds.count("qadd_dyadic") == 1
    assert kinds.count("qmean_dyadic") == 1
    assert not set(kinds) & {"qadd", "qmean", "qmul", "qavgpool", "qconv"}
    mean = next(n for n in program.nodes if n.op == "qmean_dyadic")
    assert mean.attrs["count"] == 64
    x = next(data(8, seed=9).batches(8))[0]
    taps = [name for name, value in program.values.items() if value.dtype == "u8"]
    want = interpreter.run(program, {"x": x}, taps=taps)
    ours, emulated = load(program, threads=2).run({"x": x}, taps=taps), Emulation(program).run({"x": x}, taps=taps)
    for name in taps:
        np.testing.assert_array_equal(ours[name], want[name], err_msg=name)
        np.testing.assert_array_equal(emulated[name], want[name], err_msg=name)


def test_a_mean_over_an_image_of_free_size_keeps_its_division():
    program = compiled(("N", 4, "H", "W"))
    kinds = [n.op for n in program.nodes]
    assert "qmean" in kinds
    assert "qadd_dyadic" in kinds
