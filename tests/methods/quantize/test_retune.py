"""Batch-norm tuning gives channels their float moments back; OdysseyLLM's clipping is the best share and helps GPTQ."""

import numpy as np
import pytest

from netsuke.methods.quantize._codes import weight_scales
from netsuke.methods.quantize.gptq import gptq
from netsuke.methods.quantize.odysseyllm import SHARES, clipped

from .graphs import Build, data, normed, resnet
from .ort_runner import runner
from .test_gptq import problem
from .whole import compress, db, run


def moments(model, dataset, name, axis):
    from netsuke.methods.quantize._context import feeds

    x = np.concatenate([v[name] for v in runner(model, feeds(model, dataset, 16), [name])])
    flat = np.moveaxis(x.astype(np.float64), axis, 0).reshape(x.shape[axis], -1)
    return flat.mean(axis=1), flat.std(axis=1)


@pytest.mark.parametrize(
    ("make", "axis", "taps"),
    [
        (resnet, 1, ["stem_out", "block.conv1_out", "block.conv2_out"]),
        (normed, -1, ["up_add_out", "down_add_out"]),
    ],
)
def test_channels_have_their_float_moments_again(make, axis, taps):
    model, calib = make(), data(64)
    base = "quantize/uniform:weight_bits=3,ends=0"
    plain, tuned = (compress(model, steps, calib)[0] for steps in ([base], [base, "quantize/retune"]))
    for tap in taps:
        mean, deviation = moments(model, calib, tap, axis)
        before, after = moments(plain, calib, tap, axis), moments(tuned, calib, tap, axis)
        np.testing.assert_allclose(after[0], mean, atol=2e-3 * deviation.max())
        np.testing.assert_allclose(after[1], deviation, rtol=2e-3)
        assert np.abs(before[0] - mean).max() > 10 * np.abs(after[0] - mean).max()
    assert db(run(model, calib), run(tuned, calib)) > db(run(model, calib), run(plain, calib))


def test_tensor_granularity_moves_the_mean_only():
    model, calib = resnet(), data(64)
    base = "quantize/uniform:weight_bits=4,granularity=tensor"
    plain, tuned = (compress(model, steps, calib)[0] for steps in ([base], [base, "quantize/retune"]))
    scales = [[n.inputs[1].const_value.numpy() for n in m.graph if n.name.endswith("/weight")] for m in (plain, tuned)]
    assert all(a == b for a, b in zip(*scales, strict=True))
    mean, _ = moments(model, calib, "stem_out", 1)
    np.testing.assert_allclose(moments(tuned, calib, "stem_out", 1)[0], mean, atol=1e-4)


def test_clipping_leaves_no_more_error_than_gptq_with_any_share():
    weight, hessian, _ = problem(6, 20, 200, 0)
    weight[:, 3] *= 8  # an outlier column
    full = weight_scales(weight, 0, 4)

    def errors(codes, scales):
        delta = weight - codes * scales[:, None].astype(np.float64)
        return np.einsum("ri,ij,rj->r", delta, hessian, delta)

    found = errors(*clipped(weight, hessian, 4))
    every = [np.asarray(full * share, np.float32) for share in SHARES]
    best = np.min([errors(gptq(weight, hessian, bits=4, scales=s)[0], s) for s in every], axis=0)
    np.testing.assert_allclose(found, best, rtol=1e-6)
    assert found.sum() < 0.8 * errors(gptq(weight, hessian, bits=4, scales=full)[0], full).sum()


def test_both_recipes_are_far_above_nearest_rounding():
    model, calib = normed(32), data(64)
    exact = run(model, calib)
    base = "quantize/uniform:weight_bits=3,ends=0,weights=maxabs"
    quality = {
        name: db(exact, run(compress(model, [base, *steps], calib)[0], calib))
        for name, steps in {"plain": [], "gptq": ["quantize/gptq"], "odyssey": ["quantize/odysseyllm"]}.items()
    }
    assert min(quality["odyssey"], quality["gptq"]) > quality["plain"] + 10, quality


@pytest.mark.parametrize("step", ["retune", "adaquant:iterations=3", "bias_correction"])
def test_products_without_a_bias_get_one_inside_the_quantizer(step):
    b = Build(("N", 6, 8))
    first, second = (b.const(b.rng.standard_normal((8, 8)).astype(np.float32)) for _ in range(2))
    x = b.op("MatMul", b.op("Relu", b.op("MatMul", "x", first, name="one"), name="act"), second, name="two")
    y = b.op("MatMul", x, b.const(b.rng.standard_normal((8, 4)).astype(np.float32)), name="three")
    model, calib = b.model(y), data(32, (6, 8))
    steps = ["quantize/uniform:weight_bits=3,ends=0,weights=maxabs"]
    exact, plain = run(model, calib), compress(model, steps, calib)[0]
    made = compress(model, [*steps, f"quantize/{step}"], calib)[0]
    assert db(exact, run(made, calib)) > db(exact, run(plain, calib))
    for node in made.graph:
        if node.op_type == "QuantizeLinear" and node.inputs[0].producer() is not None:
            assert node.inputs[0].producer().op_type in ("Add", "Relu"), "the bias lies behind the quantizer"
