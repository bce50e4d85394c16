"""SmoothQuant: the function is unchanged, planted outliers stop hurting, places it cannot touch are left alone."""

import numpy as np
import pytest

from netsuke.methods.quantize import smoothquant
from netsuke.methods.quantize._graph import number
from netsuke.methods.quantize.smoothquant import SmoothQuant, places

from .graphs import Build, data, normed
from .test_corrections import context
from .whole import compress, db, run


def planted(factor=60.0, channels=16):
    """A normalization with two channels far above the others, a linear layer behind it."""
    b = Build(("N", channels))
    gamma = np.ones(channels, np.float32)
    gamma[[2, 9]] = factor
    x = b.op("LayerNormalization", "x", b.const(gamma), b.const(np.zeros(channels, np.float32)), axis=-1, name="norm")
    weight = (0.3 * b.rng.standard_normal((8, channels))).astype(np.float32)
    weight[:, [2, 9]] /= factor  # as in trained networks: the large channels do not dominate the output
    return b.model(b.op("Gemm", x, b.const(weight, "w"), name="head", transB=1))


def test_places_are_norms_products_and_linear_layers():
    found = places(normed().graph)
    assert [p.tensor.name for p in found] == ["norm_out", "act_out", "rms_out"]
    assert [[n.name for n in p.writers] for p in found] == [["norm"], ["up", "up_add"], ["rms"]]


@pytest.mark.parametrize("alpha", [0.0, 0.5, 1.0])
def test_the_function_is_unchanged(alpha):
    model, calib = normed(), data(32)
    state = context(model, calib)
    smoothquant.apply(state, SmoothQuant(alpha=alpha))
    assert db(run(model, calib), run(state.model, calib)) > 90


def test_powers_of_two_keep_every_bit():
    model, calib = normed(), data(32)
    state = context(model, calib)
    smoothquant.apply(state, SmoothQuant(exact=True))
    np.testing.assert_array_equal(run(model, calib), run(state.model, calib))
    before, after = (number(next(n for n in m.graph if n.name == "up").inputs[1]) for m in (model, state.model))
    ratio = np.log2(np.abs(after / before))
    assert np.any(ratio != 0)
    np.testing.assert_array_equal(ratio, np.rint(ratio))


def test_ranges_become_equal_at_one_half():
    model, calib = normed(), data(32)
    state = context(model, calib)
    smoothquant.apply(state, SmoothQuant(alpha=0.5))
    head = next(n for n in state.model.graph if n.name == "head")  # its rows are not scaled for a tensor behind it
    name = head.inputs[0].name
    from .ort_runner import runner

    x = np.concatenate([v[name] for v in runner(state.model, state.feeds(), [name])])
    weights = np.abs(number(head.inputs[1])).max(axis=1)
    np.testing.assert_allclose(np.abs(x).reshape(-1, 4).max(axis=0), weights, rtol=1e-4)


def test_planted_outliers_collapse_plain_w8a8_and_smoothing_restores_it():
    model, calib = planted(), data(128, (16,))
    base = "quantize/whitepaper_int8:calibrator=minmax,granularity=tensor"
    exact = run(model, calib)
    plain = db(exact, run(compress(model, [base], calib)[0], calib))
    smooth = {
        a: db(exact, run(compress(model, [f"quantize/smoothquant:alpha={a}", base], calib)[0], calib))
        for a in (0.0, 0.5, 1.0)
    }
    assert smooth[0.5] > plain + 10
    assert smooth[0.5] > smooth[0.0]
    assert smooth[0.5] > smooth[1.0] - 0.5


def test_shared_weights_outputs_and_other_readers_are_left_alone():
    b = Build(("N", 8))
    norm = b.op("LayerNormalization", "x", b.const(np.ones(8, np.float32)), axis=-1, name="norm")
    weight = b.const(b.rng.standard_normal((8, 8)).astype(np.float32), "shared")
    first, second = b.op("MatMul", norm, weight), b.op("MatMul", norm, weight)
    other = b.op("LayerNormalization", "x", b.const(np.ones(8, np.float32)), axis=-1, name="other")
    third = b.op("MatMul", other, b.const(b.rng.standard_normal((8, 8)).astype(np.float32)))
    model = b.model(first, second, third, b.op("Exp", other))
    assert places(model.graph) == []
