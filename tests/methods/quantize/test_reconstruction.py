"""AdaRound, AdaQuant, BRECQ and the switches: the variables, the units, and what they promise."""

import itertools

import numpy as np
import onnx_ir as ir
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from netsuke.core.errors import UsageError
from netsuke.core.options import configure
from netsuke.methods.quantize import _torch_nodes
from netsuke.methods.quantize._codes import affine, fake_quantize, weight_scales
from netsuke.methods.quantize._units import block_units, collect, layer_units
from netsuke.methods.quantize._variables import ActivationRange, FreeWeight, SoftRounding
from netsuke.methods.quantize.adaround import AdaRound
from netsuke.methods.quantize.placement import place

from .graphs import Build, data, resnet
from .ort_runner import runner
from .test_corrections import context
from .whole import compress, db, run

torch.set_num_threads(1)  # tiny networks: threads only wait for each other


@given(st.integers(2, 8), st.integers(0, 999))
def test_soft_rounding_starts_at_the_float_weight_and_ends_beside_it(bits, seed):
    weight = np.random.default_rng(seed).standard_normal((3, 5)).astype(np.float32)
    scales, top = weight_scales(weight, 0, bits), 2 ** (bits - 1) - 1
    soft = SoftRounding(weight, scales, 0, bits)
    np.testing.assert_allclose(soft.weight().detach().numpy(), weight, rtol=1e-4, atol=1e-4 * np.abs(weight).max())
    low = np.clip(np.floor(weight / scales[:, None]), -top, top)
    assert np.all((soft.codes() == low) | (soft.codes() == np.clip(low + 1, -top, top)))
    with torch.no_grad():
        soft.values.copy_(torch.where(soft.values >= 0, 9.0, -9.0))
    assert float(soft.penalty(20.0).detach()) == 0
    np.testing.assert_allclose(soft.weight().detach().numpy(), soft.codes() * scales[:, None], rtol=1e-6)


def test_range_quantizes_as_the_definition_and_its_gradient_is_lsq():
    x = np.random.default_rng(0).standard_normal(200).astype(np.float32)
    scale, zero = affine(-0.7, 1.1, 4)
    quantizer = ActivationRange(scale, zero, 4)
    y = quantizer(torch.from_numpy(x))
    np.testing.assert_allclose(y.detach().numpy(), fake_quantize(x, scale, zero, 4), atol=1e-6)
    y.sum().backward()
    v = x / np.float32(scale)
    inside = (v >= -zero) & (v <= 15 - zero)
    expected = np.where(inside, np.rint(v) - v, np.clip(v, -zero, 15 - zero)) * scale
    assert float(quantizer.log.grad) == pytest.approx(expected.sum(), rel=1e-4)
    low, high = quantizer.bounds()
    assert affine(low, high, 4) == (pytest.approx(scale), zero)


def test_free_weight_rounds_and_passes_the_gradient():
    free = FreeWeight(np.array([[0.9, -3.0]], np.float32), np.array([1.0], np.float32), 0, 2)
    w = free.weight()
    assert w.tolist() == [[1.0, -1.0]]
    w.sum().backward()
    assert free.values.grad.tolist() == [[1.0, 0.0]]  # clipped weights get none


def test_units_are_layers_and_residual_blocks():
    model = resnet()
    placement = place(model)
    assert [u.name for u in layer_units(placement)] == ["stem", "block.conv1", "block.conv2", "block.short", "head"]
    blocks = block_units(model.graph, placement)
    assert [[x.name for x in u.layers] for u in blocks] == [
        ["stem"],
        ["block.conv1", "block.conv2", "block.short"],
        ["head"],
    ]
    assert [v.name for v in blocks[1].inputs] == ["stem_relu_out"]
    assert blocks[1].output.name == "block_out_out"


def test_torch_stretch_equals_onnxruntime_on_every_operator_used():
    b = Build()
    x = b.conv("x", 8, 4, k=3, strides=[2, 2], pads=[1, 1, 0, 1], name="a")
    x = b.op("Clip", x, b.const(np.float32(-1)), b.const(np.float32(1.5)))
    x = b.op("Pad", x, b.const(np.array([0, 1, 0, 0, 0, 2, 0, 1], np.int64)))
    x = b.op("Slice", x, *(b.const(np.array(v, np.int64)) for v in ([1], [99], [1], [2])))
    x = b.op("AveragePool", x, kernel_shape=[2, 2], strides=[1, 1], pads=[1, 1, 0, 0])
    x = b.op("MaxPool", x, kernel_shape=[2, 2], strides=[1, 1], pads=[0, 0, 1, 1])
    x = b.op("Transpose", x, perm=[0, 2, 3, 1])
    gamma = b.const(np.linspace(0.5, 2, 5).astype(np.float32))
    x = b.op("LayerNormalization", x, gamma, b.const(np.ones(5, np.float32)), axis=-1)
    x = b.op("Softmax", b.op("Gelu", x), axis=-1)
    x = b.op("ReduceMean", x, b.const(np.array([1, 2], np.int64)), keepdims=0)
    model = b.model(b.linear(x, 3, 5, "head"))
    nodes, inputs = list(model.graph), next(data(8).batches(8))[0]
    assert not _torch_nodes.unsupported(nodes)
    values = _torch_nodes.run(nodes, {model.graph.inputs[0]: torch.from_numpy(inputs)})
    got = values[model.graph.outputs[0]].detach().numpy()
    want = next(iter(runner(model, [{"x": inputs}], [])))[model.graph.outputs[0].name]
    np.testing.assert_allclose(got, want, rtol=1e-4, atol=1e-5)


def test_unfolded_columns_times_weight_are_the_convolution():
    rng = np.random.default_rng(0)
    for group, pads, stride in itertools.product((1, 2, 4), ([1, 1, 1, 1], [0, 1, 2, 0]), (1, 2)):
        b = Build()
        model = b.model(b.conv("x", 8, 4, group=group, pads=pads, strides=[stride] * 2, name="c", bias=False))
        node, x = next(iter(model.graph)), torch.from_numpy(rng.standard_normal((3, 4, 8, 8)).astype(np.float32))
        weight = torch.from_numpy(np.array(node.inputs[1].const_value.numpy()))
        columns = _torch_nodes.unfolded(node, x, (3, 3))
        product = torch.bmm(weight.reshape(group, 8 // group, -1), columns)
        want = _torch_nodes.run([node], {model.graph.inputs[0]: x})[node.outputs[0]]
        flat = want.permute(1, 0, 2, 3).reshape(group, 8 // group, -1)
        torch.testing.assert_close(product, flat, rtol=1e-4, atol=1e-4)


def test_collect_stops_at_the_memory_bound_and_at_the_samples():
    state = context(resnet(), data(64))
    full = collect(state, state.model, ["x", "stem_relu_out"], 40)
    assert [len(a) for a in full] == [40, 40]
    one = full[0][:16].nbytes + full[1][:16].nbytes
    assert len(collect(state, state.model, ["x", "stem_relu_out"], 64, held=2 * one)[0]) == 32
    assert len(collect(state, state.model, ["x"], 64, held=1)[0]) == 16  # one batch is always taken


@pytest.mark.parametrize(
    "step",
    [
        "gptq",
        "adaround:iterations=120",
        "adaquant:iterations=120",
        "brecq:iterations=120",
        "gradient_ptq:iterations=80,unit=layer,variable=weight,loss=l1,drop=0,rate=0.003",
    ],
)
def test_each_method_beats_nearest_rounding_on_the_block(step):
    """W3A8: the error of the last block's output on the calibration data, where the methods promise something."""
    model, calib = resnet(), data(64)
    base = "quantize/uniform:weight_bits=3,ends=0,weights=maxabs"
    plain, _ = compress(model, [base], calib)
    better, plan = compress(model, [base, f"quantize/{step}"], calib)
    gain = db(run(model, calib), run(better, calib)) - db(run(model, calib), run(plain, calib))
    assert gain > 3, gain
    for node in better.graph:
        if node.name.endswith("/weight"):
            assert np.abs(node.inputs[0].const_value.numpy()).max() <= 3
    assert plan["*"].rows


def test_same_seed_same_bytes_and_the_network_given_is_not_changed():
    model, calib = resnet(), data(32)
    before = ir.to_proto(model).SerializeToString(deterministic=True)
    steps = ["quantize/uniform:weight_bits=3", "quantize/brecq:iterations=10"]
    made = [ir.to_proto(compress(model, steps, calib)[0]).SerializeToString(deterministic=True) for _ in range(2)]
    assert made[0] == made[1]
    assert ir.to_proto(model).SerializeToString(deterministic=True) == before


def test_a_unit_without_gain_keeps_nearest_rounding():
    model, calib = resnet(), data(32)
    base = ["quantize/uniform:weight_bits=4"]
    steps = [*base, "quantize/adaround:iterations=1,rate=0,regular=0"]
    first, second = compress(model, base, calib)[0], compress(model, steps, calib)[0]
    codes = [[n.inputs[0].const_value.numpy() for n in m.graph if n.name.endswith("/weight")] for m in (first, second)]
    assert all((a == b).all() for a, b in zip(*codes, strict=True))


def test_operators_without_a_rule_are_named_and_fitted_around():
    b = Build()
    x = b.op("Relu", b.conv("x", 4, 4, name="a"))
    y = b.op("Celu", b.conv(x, 4, 4, name="b"), name="odd")
    x = b.op("Add", x, b.conv(y, 4, 4, name="c"), name="sum")
    model, calib = b.model(b.conv(x, 4, 4, name="d")), data(32)
    _, plan = compress(model, ["quantize/uniform:weight_bits=4", "quantize/brecq:iterations=2,loss=l2"], calib)
    assert any("layer by layer" in note and "Celu" in note for note in plan.notes), plan.notes


def test_impossible_options_are_refused_together():
    with pytest.raises(UsageError) as caught:
        configure(AdaRound, {"iterations": 0, "rate": -1.0, "inputs": "dreamt"}, "quantize/adaround")
    assert len(caught.value.problems) == 3


def test_a_decoder_over_tokens_is_fitted_block_by_block():
    from netsuke.capture import capture
    from netsuke.data import Dataset
    from netsuke.models import build

    tokens = np.random.default_rng(0).integers(0, 128, (32, 32))
    model, calib = capture(build("char_lm_tiny"), shape=(1, 32), dtype="i64"), Dataset.from_arrays(tokens)
    blocks = block_units(model.graph, place(model))
    assert [len(u.layers) for u in blocks] == [2, 2, 2, 2, 1]  # attention and mlp of both blocks, the head
    base = "quantize/uniform:weight_bits=3,ends=0"
    exact = run(model, calib)
    plain = db(exact, run(compress(model, [base], calib)[0], calib))
    better, plan = compress(model, [base, "quantize/brecq:iterations=60,batch=8"], calib)
    assert db(exact, run(better, calib)) > plain + 2
    assert not any("layer by layer" in note for note in plan.notes)


def test_a_network_of_two_inputs_is_fitted():
    from netsuke.data import Dataset

    b = Build()
    b.inputs.append(__import__("onnx").helper.make_tensor_value_info("z", 1, ("N", 4, 8, 8)))
    x = b.op("Relu", b.op("Add", b.conv("x", 4, 4, name="a"), b.conv("z", 4, 4, name="c"), name="sum"), name="act")
    model = b.model(b.conv(x, 4, 4, name="d"))
    rng = np.random.default_rng(0)
    both = {n: rng.standard_normal((32, 4, 8, 8)).astype(np.float32) for n in ("x", "z")}
    calib = Dataset.from_arrays(both)
    made, _ = compress(model, ["quantize/uniform:weight_bits=3,ends=0", "quantize/brecq:iterations=5"], calib)
    assert sum(n.name.endswith("/weight") for n in made.graph) == 3


def test_without_torch_the_step_says_what_to_install(monkeypatch):
    from netsuke.core.errors import EnvironmentProblem
    from netsuke.methods.quantize import _learned

    monkeypatch.setattr(_learned.importlib.util, "find_spec", lambda _name: None)
    with pytest.raises(EnvironmentProblem, match=r"netsuke\[torch\]"):
        compress(resnet(), ["quantize/uniform:weight_bits=4", "quantize/gptq"], data(16))


def test_importance_is_least_where_nothing_listens():
    from netsuke.methods.quantize._fisher import squared_scores

    b = Build()
    x = b.op("Relu", b.conv("x", 6, 4, name="a"), name="act")
    flat = b.op("Flatten", b.op("GlobalAveragePool", x, name="gap"), name="flat")
    weight = b.rng.standard_normal((5, 6)).astype(np.float32)
    weight[:, [1, 4]] = 0  # two channels nobody listens to
    model = b.model(b.op("Gemm", flat, b.const(weight, "w"), name="head", transB=1))
    state = context(model, data(32))
    state.placement = place(state.model)
    unit = block_units(state.model.graph, state.placement)[0]
    target = torch.from_numpy(collect(state, state.model, [unit.output.name], 32)[0])
    found = squared_scores(state, unit, target)
    assert found.shape == target.shape
    assert float(found.mean()) == pytest.approx(1, rel=1e-5)
    per_channel = found.mean(dim=(0, 2, 3))
    assert sorted(per_channel.argsort()[:2].tolist()) == [1, 4]
    per_sample = found.mean(dim=(1, 2, 3))
    assert float(per_sample.max() / per_sample.min()) < 3  # no sample decides alone
