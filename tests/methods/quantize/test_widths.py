"""Codes of 2 to 8 bits: one tensor has one width, codes keep their limits, contradictions are refused at once."""

import numpy as np
import onnx_ir as ir
import pytest

from netsuke.capture import capture
from netsuke.core.budget import Budget
from netsuke.core.errors import UsageError
from netsuke.core.plan import Plan
from netsuke.core.recipe import Recipe, uniform
from netsuke.engine import load
from netsuke.methods.quantize import ptq
from netsuke.methods.quantize._graph import constant
from netsuke.passes import compile_program
from netsuke.pipeline.runner import EngineRunner
from netsuke.program import emulate, interpreter, verify

from .graphs import Build, data, resnet

CALIB = data()


def plan_of(model, recipe, effort="fast"):
    return ptq.make_plan(model, recipe=recipe, calib=CALIB, runner=EngineRunner(1), effort=effort)


def quantized(model, plan):
    return ptq.quantize(model, plan=plan, calib=CALIB, runner=EngineRunner(1))


def bits_of(plan):
    return {row.name: (row.weight_bits, row.activation_bits) for row in plan}


@pytest.mark.parametrize(("weight_bits", "activation_bits"), [(4, 8), (4, 4), (3, 6), (2, 2), (8, 5), (7, 3)])
def test_engine_interpreter_and_emulation_agree_on_narrow_codes(weight_bits, activation_bits):
    model = capture(resnet())
    plan = plan_of(model, f"cpu-w{weight_bits}a{activation_bits}")
    program = compile_program(quantized(model, plan))
    verify(program)
    x = next(data(8, seed=5).batches(8))[0]
    taps = [name for name, value in program.values.items() if value.dtype == "u8"]
    ours = load(program, threads=1).run({"x": x}, taps=taps)
    reference = interpreter.run(program, {"x": x}, taps=taps)
    emulated = emulate.Emulation(program).run({"x": x}, taps=taps)
    for name in taps:
        np.testing.assert_array_equal(ours[name], reference[name], err_msg=name)
        np.testing.assert_array_equal(np.asarray(emulated[name]), reference[name], err_msg=name)
    by_source = {value.source: name for name, value in program.values.items() if value.dtype == "u8"}
    narrow = reference[by_source["block_relu_out"]]
    assert 2 ** (activation_bits - 1) <= narrow.max() <= 2**activation_bits - 1
    assert reference[by_source["x"]].max() > 127  # the first layer reads 8 bits
    assert reference[by_source["block.conv2_out"]].max() > 127  # and so does a residual
    conv = next(n for n in program.nodes if n.name == "block.conv2")
    assert np.abs(program.constants[conv.inputs[1]].astype(int)).max() == 2 ** (weight_bits - 1) - 1
    assert not [n for n in program.nodes if n.op in ("unary", "conv")]  # no limit is left behind as a float operator


def test_first_and_last_layer_keep_eight_bits_unless_told():
    model = capture(resnet())
    found = bits_of(plan_of(model, "cpu-w4a4"))
    assert found["stem"] == found["head"] == (8, 8)
    assert found["block.conv1"] == found["block.conv2"] == found["block.short"] == (4, 4)
    assert found["gap"] == (None, 8)  # nobody multiplies what the mean reads
    everywhere = bits_of(plan_of(model, ["quantize/uniform:weight_bits=3,activation_bits=5,ends=0"]))
    assert everywhere["stem"] == everywhere["head"] == (3, 5)


def test_layers_without_arithmetic_follow_their_neighbours():
    b = Build()
    stem = b.op("Relu", b.conv("x", name="stem"), name="relu")
    left = b.op("Relu", b.conv(stem, name="left"), name="left_relu")
    pool = b.op("AveragePool", left, name="pool", kernel_shape=[2, 2], strides=[2, 2])
    down = b.conv(left, name="down", strides=[2, 2])
    total = b.op("Add", pool, b.op("Relu", down, name="down_relu"), name="sum")
    model = capture(b.model(b.conv(total, name="end")))
    found = bits_of(plan_of(model, "cpu-w4a4"))
    assert found["pool"] == (None, 4)  # left_relu_out is read by the convolution "down" at 4 bits
    assert found["sum"] == (None, 8)  # pool_out and down_relu_out are read by the sum alone


def test_one_tensor_has_one_width():
    model = capture(resnet())
    plan = plan_of(model, "cpu-int8")
    plan["block.conv1"].bits = 4
    plan["block.conv2"].weight_bits = None
    with pytest.raises(UsageError) as caught:
        quantized(model, plan)
    text = str(caught.value)
    assert "one tensor has one width" in text  # block.short reads the same tensor at 8 bits
    assert "block.conv1 4, block.short 8" in text
    assert "no weight_bits" in text
    assert len(caught.value.problems) == 2
    plan["block.conv2"].weight_bits, plan["block.short"].bits = 3, 4
    assert quantized(model, plan) is not None


def test_every_impossible_row_is_listed_before_anything_runs():
    model = capture(resnet())
    plan = plan_of(model, "cpu-int8")
    plan["stem"].weight_bits = 1
    plan["head"].weight_bits = 32
    plan["gap"].activation_bits = 9
    plan["block.short"].activation_bits = 3

    def never(*_arguments):
        raise AssertionError("calibration ran")

    with pytest.raises(UsageError) as caught:
        ptq.quantize(model, plan=plan, calib=CALIB, runner=never)
    assert {p.where for p in caught.value.problems} >= {"stem", "head", "gap"}
    assert "one tensor has one width" in str(caught.value)


def test_inception_branches_are_resolved_when_the_plan_is_made():
    b = Build()
    first, second = b.conv("x", name="first"), b.conv("x", name="second")
    third = b.conv(b.op("Concat", first, second, name="join", axis=1), 4, 8, name="third")
    model = capture(b.model(b.conv(third, name="last")))
    plan = plan_of(model, "cpu-w4a4")
    assert bits_of(plan)["second"] == (4, 8)  # reads the network's input, which the first layer reads at 8 bits
    assert "same tensor as first" in plan["second"].reason
    assert bits_of(plan)["join"] == (None, 8)  # its inputs are read by nobody else


def test_narrow_plan_survives_toml_and_gives_the_same_graph():
    model = capture(resnet())
    plan = plan_of(model, "cpu-w4a4")
    again = Plan.from_toml(plan.to_toml())
    first, second = (ir.to_proto(quantized(model, p)).SerializeToString(deterministic=True) for p in (plan, again))
    assert first == second


def test_onnx_form_is_standard_and_limits_are_on_the_grid():
    model = capture(resnet())
    graph = quantized(model, plan_of(model, "cpu-w4a4")).graph
    limits = [n for n in graph if n.op_type == "Clip"]
    assert len(limits) == 2  # stem_relu_out and block_relu_out; a residual and the input of the mean have 8 bits
    for node in limits:
        quantize = node.outputs[0].uses()[0].node
        scale = constant(quantize.inputs[1])
        steps = constant(node.inputs[2]) / scale
        assert steps == pytest.approx(15)
        assert constant(node.inputs[1]) == 0


@pytest.mark.parametrize(("text", "name"), [("4", "cpu-w4a4"), ("w4a8", "cpu-w4a8"), (" W2A6 ", "cpu-w2a6")])
def test_bits_name_a_recipe(text, name):
    assert uniform(text) == name
    assert Recipe.make(name).name == name


@pytest.mark.parametrize("text", ["", "w4", "9", "w1a1", "4bits"])
def test_bits_that_cannot_be_are_refused(text):
    with pytest.raises(UsageError, match="bits"):
        uniform(text)


def test_mse_range_depends_on_the_width():
    model = capture(resnet())
    scales = {}
    for bits in (8, 3):
        graph = quantized(model, plan_of(model, f"cpu-w8a{bits}")).graph
        scales[bits] = float(constant(graph.initializers["block_relu_out.scale"])) * (2**bits - 1)
    assert scales[3] < 0.9 * scales[8]


def test_narrow_layers_are_raised_only_when_a_drop_is_limited():
    model = capture(resnet())
    asked = plan_of(model, "cpu-w2a4", effort="normal")
    assert asked["block.conv1"].weight_bits == 2
    assert any("as asked for" in note for note in asked.notes)
    limited = ptq.make_plan(
        model, budget=Budget(drop={"top1": 0.0}), recipe="cpu-w2a4", calib=CALIB, runner=EngineRunner(1)
    )
    raised = [row for row in limited if row.reason.startswith("raised to 8 bits")]
    assert raised
    assert all((row.weight_bits, row.activation_bits) == (8, 8) for row in raised)
    assert quantized(model, limited) is not None  # whoever shares a tensor was raised with it
