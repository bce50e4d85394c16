import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import array_shapes, arrays

from netsuke.methods.quantize._codes import affine, fake_quantize, weight_codes, weight_scales

finite = st.floats(-1e6, 1e6, width=32)
weights = arrays(np.float32, array_shapes(min_dims=2, max_dims=4, max_side=5), elements=finite)


@given(st.floats(-1e6, 0), st.floats(0, 1e6), st.integers(2, 8))
def test_affine_covers_the_range_and_represents_zero(low, high, bits):
    scale, zero = affine(low, high, bits)
    top = 2**bits - 1
    assert scale == float(np.float32(scale)) > 0
    assert 0 <= zero <= top
    if high - low > 1e-30:
        assert scale * (0 - zero) <= low + scale * 0.5001
        assert scale * (top - zero) >= high - scale * 0.5001
    assert fake_quantize(np.zeros(1, np.float32), scale, zero, bits)[0] == 0


@given(arrays(np.float32, 20, elements=st.floats(-100, 100, width=32)))
def test_fake_quantize_is_within_half_a_step_and_idempotent(x):
    scale, zero = affine(min(0.0, float(x.min())), max(0.0, float(x.max())))
    y = fake_quantize(x, scale, zero)
    assert np.abs(y - x).max() <= scale * 1.0001  # half a step, and the range may be off by half a step at one end
    np.testing.assert_array_equal(fake_quantize(y, scale, zero), y)


@given(weights, st.sampled_from(["maxabs", "mse"]), st.sampled_from([None, 0, 1]), st.sampled_from([8, 4, 2]))
def test_weight_codes_are_symmetric_and_near(weight, rule, axis, bits):
    scales = weight_scales(weight, axis, bits, rule)
    codes = weight_codes(weight, scales, axis, bits)
    top = 2 ** (bits - 1) - 1
    assert codes.dtype == np.int8
    assert np.abs(codes.astype(int)).max() <= top
    assert scales.dtype == np.float32
    assert (scales > 0).all()
    assert np.isfinite(scales).all()
    shape = [1] * weight.ndim
    if axis is not None:
        shape[axis] = -1
    steps = scales.reshape(shape) if axis is not None else scales.reshape(())
    if rule == "maxabs":
        assert (np.abs(codes * steps - weight) <= steps * 0.5001 + 1e-37).all()
    else:
        plain = weight_scales(weight, axis, bits)
        exact = weight.astype(np.float64)
        before = (
            (weight_codes(weight, plain, axis, bits) * plain.reshape(steps.shape).astype(float) - exact) ** 2
        ).sum()
        after = ((codes * steps.astype(float) - exact) ** 2).sum()
        assert after <= before * (1 + 1e-4) + 1e-30


def test_largest_weight_of_each_channel_is_127():
    weight = np.array([[1.0, -3.0], [0.5, 0.25]], np.float32)
    scales = weight_scales(weight, 0)
    np.testing.assert_array_equal(scales, np.array([3 / 127, 0.5 / 127], np.float32))
    assert weight_codes(weight, scales, 0).tolist() == [[42, -127], [127, 64]]


def test_channel_of_zeros_takes_scale_one():
    assert weight_scales(np.zeros((2, 3), np.float32), 0).tolist() == [1.0, 1.0]


@pytest.mark.parametrize("tiny", [1e-45, 1e-39])
def test_denormal_weights_keep_a_normal_scale(tiny):
    scales = weight_scales(np.full((1, 2), tiny, np.float32), 0)
    assert scales[0] >= np.finfo(np.float32).tiny
