"""Equalization, bias correction, data-free ranges, convergence: against plain computations."""

import json

import numpy as np
import onnx_ir as ir
import pytest
from hypothesis import given
from hypothesis import strategies as st

from netsuke.capture.batchnorm import BN_MEAN, BN_STD, fold_batchnorm
from netsuke.core.errors import UsageError
from netsuke.core.plan import Plan
from netsuke.methods.quantize import bias_correction, convergence, data_free, equalization, ptq
from netsuke.methods.quantize._context import Context, feeds
from netsuke.methods.quantize._graph import bn_statistics, clone, constant, is_float
from netsuke.methods.quantize.placement import place

from .graphs import Build, data, resnet
from .ort_runner import runner
from .whole import compress, db, plan_of, run


def uneven(group=1, activation="Relu"):
    """Two convolutions whose channels differ by factors of up to a thousand."""
    b = Build()
    b.conv("x", 8, 4, name="a")
    gain = np.logspace(-1.5, 1.5, 8).astype(np.float32)
    for proto in b.constants[-2:]:
        import onnx

        array = onnx.numpy_helper.to_array(proto)
        proto.CopyFrom(onnx.numpy_helper.from_array(array * gain.reshape(-1, *[1] * (array.ndim - 1)), proto.name))
    y = b.op(activation, "a_out", name="act")
    y = b.conv(y, 8, 8, name="b", group=group)
    weight = b.constants[-2]
    array = onnx.numpy_helper.to_array(weight)
    per_input = 1 / gain.reshape(group, -1)
    array = array.reshape(group, 8 // group, 8 // group, 3, 3) * per_input[:, None, :, None, None]
    weight.CopyFrom(onnx.numpy_helper.from_array(array.reshape(8, 8 // group, 3, 3).astype(np.float32), "b.weight"))
    return b.model(b.conv(b.op("Relu", y, name="act2"), 4, 8, name="c"))


def context(model, calib=None):
    plan = Plan([], steps=["quantize/whitepaper_int8"], data={"source": "test"})
    return Context(clone(model), plan, calib, runner, batch=16)


@pytest.mark.parametrize("group", [1, 2, 8])
@pytest.mark.parametrize("activation", ["Relu", "LeakyRelu"])
def test_equalization_keeps_the_function_and_evens_the_ranges(group, activation):
    model, calib = uneven(group, activation), data()
    state = context(model)
    equalization.apply(state, equalization.Equalization())
    assert db(run(model, calib), run(state.model, calib)) > 100
    pairs = equalization.pairs(state.model.graph)
    assert [(a.name, b.name) for a, b in pairs] == [("a", "b"), ("b", "c")]
    for first, second in pairs:
        np.testing.assert_allclose(equalization.row_ranges(first), equalization.column_ranges(second), rtol=3e-3)


def test_equalization_rescues_per_tensor_weights():
    # DFQ's claim in small: channels of very different size are lost by one scale per tensor
    model, calib = uneven(), data()
    base = "quantize/whitepaper_int8:granularity=tensor"
    plain = db(run(model, calib), run(compress(model, [base], calib)[0], calib))
    even = db(run(model, calib), run(compress(model, ["quantize/equalization", base], calib)[0], calib))
    assert even > plain + 6


def test_equalization_leaves_residual_blocks_and_clips_alone():
    b = Build()
    y = b.op("Clip", b.conv("x", name="a"), b.const(np.float32(0)), b.const(np.float32(6)), name="relu6")
    model = b.model(b.conv(y, name="b"))
    assert equalization.pairs(model.graph) == []
    assert [(a.name, c.name) for a, c in equalization.pairs(resnet().graph)] == [("block.conv1", "block.conv2")]


def test_bias_absorption_keeps_relu_networks_almost_unchanged():
    b = Build()
    b.conv("x", 8, 4, name="a")
    model = b.model(b.conv(b.op("Relu", "a_out", name="act"), 4, 8, k=1, name="b", pads=[0] * 4))
    node = next(n for n in model.graph if n.name == "a")
    weight, bias = constant(node.inputs[1]), constant(node.inputs[2]) + 20  # far above zero: the ReLU never clips
    node.inputs[2].const_value = ir.tensor(bias, name=node.inputs[2].name)
    std = np.sqrt((weight.reshape(8, -1) ** 2).sum(axis=1))
    node.metadata_props[BN_MEAN], node.metadata_props[BN_STD] = json.dumps(bias.tolist()), json.dumps(std.tolist())
    state = context(model)
    equalization.apply(state, equalization.Equalization(absorb=True))
    assert "1 biases absorbed" in state.plan.notes[0]
    assert db(run(model, data()), run(state.model, data())) > 25
    changed = next(n for n in state.model.graph if n.name == "a")
    assert np.abs(constant(changed.inputs[2])).max() < 0.5 * np.abs(bias).max()


conv_cases = st.tuples(
    st.sampled_from([1, 2, 4]), st.integers(1, 3), st.integers(1, 2), st.integers(1, 2),
    st.sampled_from([(0, 0, 0, 0), (1, 1, 1, 1), (0, 1, 2, 0)]), st.integers(5, 9),
)  # fmt: skip


@given(conv_cases)
def test_mean_response_is_the_mean_of_the_convolution(case):
    group, k, stride, dilation, pads, side = case
    b = Build(("N", 4, side, side))
    options = {"group": group, "strides": [stride] * 2, "dilations": [dilation] * 2, "pads": list(pads)}
    model = b.model(b.conv("x", 4, 4, k, name="c", bias=False, **options))
    calib = data(5, (4, side, side))
    node = model.graph[0]
    mean = calib.reader.x.mean(axis=0, dtype=np.float64)
    expected = run(model, calib).mean(axis=(0, 2, 3), dtype=np.float64)
    got = bias_correction.response(node, constant(node.inputs[1]).astype(np.float64), mean)
    np.testing.assert_allclose(got, expected, rtol=1e-4, atol=1e-5)


def test_bias_correction_removes_the_mean_error():
    model, calib = resnet(), data(128)
    base = "quantize/whitepaper_int8:granularity=tensor,calibrator=percentile"

    def shift(recipe):
        quantized, _ = compress(model, recipe, calib)
        return np.abs((run(quantized, calib) - run(model, calib)).mean(axis=0)).mean()

    assert shift([base, "quantize/bias_correction"]) < 0.5 * shift([base])


def test_bias_correction_of_matmul_writes_or_changes_the_add():
    b = Build(("N", 8))
    weight = lambda n: b.const((b.rng.standard_normal((8, 8))).astype(np.float32), f"{n}.weight")  # noqa: E731
    y = b.op("Relu", b.op("MatMul", "x", weight("plain"), name="plain"), name="r")
    y = b.op("Add", b.op("MatMul", y, weight("biased"), name="biased"), b.const(np.ones(8, np.float32)), name="add")
    model, calib = b.model(y), data(64, (8,))
    quantized, _ = compress(model, ["quantize/whitepaper_int8", "quantize/bias_correction"], calib)
    assert [n.op_type for n in quantized.graph].count("Add") == 2
    assert db(run(model, calib), run(quantized, calib)) > 30


def test_rectified_mean_is_the_mean_of_a_clipped_normal():
    rng = np.random.default_rng(0)
    beta, gamma = np.array([-1.0, 0.0, 2.0, 3.0, -3.0]), np.array([1.0, 2.0, 0.5, 0.0, 0.0])
    samples = np.maximum(rng.standard_normal((400_000, 5)) * gamma + beta, 0).mean(axis=0)
    np.testing.assert_allclose(bias_correction.rectified_mean(beta, gamma), samples, atol=5e-3)


def normalized():
    """conv, batch norm, relu, conv as captured: folded, with the statistics kept."""
    b = Build()
    y = b.conv("x", 8, 4, name="a", bias=False)
    gamma, beta = np.linspace(0.5, 1.5, 8, dtype=np.float32), np.linspace(-1, 1, 8, dtype=np.float32)
    mean, var = np.zeros(8, np.float32), np.full(8, 3.0, np.float32)
    y = b.op("BatchNormalization", y, *(b.const(v) for v in (gamma, beta, mean, var)), name="bn")
    y = b.op("Relu", y, name="r")
    model = b.model(b.conv(y, 4, 8, name="b"))
    assert fold_batchnorm(model.graph) == 1
    return model, beta, gamma


def test_capture_keeps_batch_norm_statistics_for_data_free_ranges():
    model, beta, gamma = normalized()
    found = bn_statistics(place(model).layers["a"].node)
    np.testing.assert_allclose(found, (beta, gamma))
    low, high = data_free.layer_bounds(place(model).layers["a"])
    assert low == 0.0
    assert high == pytest.approx(float((beta + 6 * gamma).max()))
    quantized, plan = compress(model)
    scale = constant(quantized.graph.initializers["r_out.scale"])
    assert float(scale) == pytest.approx(high / 255)
    assert plan.data["source"] == data_free.SOURCE


def test_analytic_bias_correction_runs_without_data():
    model, _, _ = normalized()
    quantized, _ = compress(model, ["quantize/whitepaper_int8", "quantize/bias_correction"])
    assert db(run(model, data()), run(quantized, data())) > 20


def test_equalization_scales_the_statistics_too():
    model, beta, gamma = normalized()
    state = context(model)
    before = equalization.row_ranges(place(model).layers["a"].node)
    equalization.apply(state, equalization.Equalization())
    node = place(state.model).layers["a"].node
    factor = equalization.row_ranges(node) / before
    np.testing.assert_allclose(bn_statistics(node), (beta * factor, gamma * factor), rtol=1e-4)


def test_synthetic_inputs_are_seeded_normalized_and_pink():
    model = resnet()
    x = data_free.dataset(model, 1).reader.x
    np.testing.assert_array_equal(x, data_free.dataset(model, 1).reader.x)
    assert x.shape == (data_free.SAMPLES, 4, 8, 8)
    np.testing.assert_allclose(x.mean(axis=(1, 2, 3)), 0, atol=1e-5)
    np.testing.assert_allclose(x.std(axis=(1, 2, 3)), 1, atol=1e-5)
    neighbours = np.mean([np.corrcoef(i[:, :, :-1].ravel(), i[:, :, 1:].ravel())[0, 1] for i in x])
    assert neighbours > 0.3
    free = Build(("N", 3, "H", "W"))
    assert data_free.dataset(free.model(free.conv("x", 4, 3))).shape == (3, data_free.SIDE, data_free.SIDE)


def test_data_free_needs_a_float_input_of_known_channels():
    b = Build(("N", "C"))
    with pytest.raises(UsageError, match="give calibration data"):
        data_free.dataset(b.model(b.op("Relu", "x")))


def test_convergence_curve_falls_to_zero():
    model, calib = resnet(), data(128)
    plan = plan_of(model, ["quantize/whitepaper_int8:calibrator=minmax"], calib)
    state = ptq.prepare(model, plan, calib, runner, 0)
    points = convergence.curve(state)
    assert points[-1].samples == 128
    assert points[-1].median == points[-1].worst == 0
    medians = [p.median for p in points]
    assert medians == sorted(medians, reverse=True)
    assert medians[0] > 0
    convergence.apply(state, convergence.Convergence())
    assert "half of the ranges" in state.plan.notes[-1]


def test_scaling_by_a_constant_keeps_the_codes():
    b = Build()
    y = b.op("Mul", b.conv("x", name="a"), b.const(np.float32(0.125)), name="scaled")
    quantized, _ = compress(b.model(b.conv(y, name="b")), calib=data())
    graph = quantized.graph.initializers
    assert float(constant(graph["scaled_out.scale"])) == pytest.approx(0.125 * float(constant(graph["a_out.scale"])))
    np.testing.assert_array_equal(constant(graph["scaled_out.zero"]), constant(graph["a_out.zero"]))


def test_all_values_of_a_result_are_typed():
    quantized, _ = compress(resnet(), calib=data())
    for node in quantized.graph:
        for out in node.outputs:
            assert out.dtype in (ir.DataType.FLOAT, ir.DataType.UINT8), out.name
            assert is_float(out) == (node.op_type != "QuantizeLinear")


def test_bias_correction_reads_the_data_again_only_for_what_is_new():
    # planning corrects the same network after every layer that is raised: only new quantizers or codes cost a run
    from netsuke.methods.quantize import insert
    from netsuke.methods.quantize.sensitivity import _again

    model, calib = resnet(), data()
    read = []

    def counted(graph, batches, taps):
        read.append(sorted(taps))
        yield from runner(graph, batches, taps)

    plan = plan_of(model, calib=calib)
    state = ptq.prepare(model, plan, calib, counted, 0, histograms=True)

    def corrected(shifts):
        made = Context(clone(state.model), plan, calib, counted, 0, state.batch)
        made.placement = place(made.model, {row.name for row in plan.rows if row.kept})
        made.ranges, made.widths, made.shifts = dict(state.ranges), dict(state.widths), shifts
        bias_correction.apply(made, bias_correction.BiasCorrection())
        insert.insert(made)
        return run(made.model, calib)

    read.clear()
    np.testing.assert_array_equal(corrected(state.shifts), corrected(state.shifts))
    assert len(read) == 1
    row = plan.rows[1]
    row.method = "quantize/minmax" if row.method != "quantize/minmax" else "quantize/percentile:percent=99.0"
    _again(state)
    again = corrected(state.shifts)
    assert len(read) == 2
    assert 0 < len(read[1]) < len(read[0])
    np.testing.assert_array_equal(again, corrected({}))


def counting_runner(seen):
    def counted(graph, batches, taps):
        def watched():
            for feed in batches:
                seen.append(len(feed["x"]))
                yield feed

        yield from runner(graph, watched(), taps)

    return counted


def test_bias_correction_reads_samples_until_they_hold_enough_values():
    model, calib = resnet(), data(64)  # 256 values a sample
    plan = plan_of(model, calib=calib)
    for values, count in ((0, 64), (2_000, 8), (10_000_000, 64)):
        seen = []
        state = ptq.prepare(model, plan, calib, counting_runner(seen), 0)
        seen.clear()
        bias_correction.apply(state, bias_correction.BiasCorrection(values))
        assert sum(seen) == count
    with pytest.raises(UsageError, match="values"):
        bias_correction.apply(state, bias_correction.BiasCorrection(-1))


def test_a_part_of_the_samples_is_drawn_from_all_of_them():
    # data may be sorted by class, as folders of images are
    calib = data(64)
    calib.reader.x[:] = np.arange(64, dtype=np.float32).reshape(-1, 1, 1, 1)
    drawn = np.concatenate([feed["x"][:, 0, 0, 0] for feed in feeds(resnet(), calib, 4, 10)])
    assert len(drawn) == 10
    assert drawn.min() < 32 < drawn.max()


def test_a_network_of_fixed_batch_gets_whole_batches():
    b = Build((4, 4, 8, 8))
    model = b.model(b.conv("x"))
    assert [len(feed["x"]) for feed in feeds(model, data(64), 16, 3)] == [4]
    assert [len(feed["x"]) for feed in feeds(model, data(10), 16)] == [4, 4]
