"""GPTQ against brute force and its invariants; AdaRound's variable; what reconstruction promises."""

import itertools

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from netsuke.core.errors import UsageError
from netsuke.methods.quantize._codes import weight_codes, weight_scales
from netsuke.methods.quantize.gptq import gptq


def problem(rows, columns, samples, seed, correlated=True):
    rng = np.random.default_rng(seed)
    mix = rng.standard_normal((columns, columns)) if correlated else np.eye(columns)
    x = mix @ rng.standard_normal((columns, samples))
    return rng.standard_normal((rows, columns)).astype(np.float32), 2 / samples * x @ x.T, x


def error(weight, codes, scales, hessian):
    width = weight.shape[1] // scales.shape[1]
    delta = weight - codes * np.repeat(scales.astype(np.float64), width, axis=1)
    return np.einsum("ri,ij,rj->r", delta, hessian, delta)


def nearest(weight, bits, rule="maxabs"):
    scales = weight_scales(weight, 0, bits, rule)
    return weight_codes(weight, scales, 0, bits), scales[:, None]


@pytest.mark.parametrize("act_order", [False, True])
@pytest.mark.parametrize("bits", [2, 3, 4])
def test_error_in_the_norm_of_h_is_below_nearest_rounding(bits, act_order):
    weight, hessian, _ = problem(64, 48, 400, bits)
    plain, scales = nearest(weight, bits)
    codes, steps = gptq(weight, hessian, bits=bits, scales=scales[:, 0], act_order=act_order)
    np.testing.assert_array_equal(steps, scales)
    assert np.abs(codes).max() <= 2 ** (bits - 1) - 1
    assert error(weight, codes, steps, hessian).sum() < 0.7 * error(weight, plain, scales, hessian).sum()


def test_diagonal_h_gives_nearest_rounding():
    weight, hessian, _ = problem(16, 24, 4000, 0, correlated=False)
    plain, scales = nearest(weight, 4)
    codes, _ = gptq(weight, np.diag(np.diag(hessian)), bits=4, scales=scales[:, 0], damp=0.0)
    np.testing.assert_array_equal(codes, plain)


def test_block_size_does_not_change_the_codes():
    weight, hessian, _ = problem(20, 60, 500, 1)
    for group in (0, 12):
        found = [gptq(weight, hessian, bits=3, group=group, block=b) for b in (1, 7, 16, 60, 128)]
        for codes, scales in found[1:]:
            np.testing.assert_allclose(scales, found[0][1], rtol=1e-5)
            assert (codes != found[0][0]).mean() < 0.01  # sums in another order may tip a tie


def test_last_column_is_optimal_given_the_others_and_brute_force_bounds_it():
    weight, hessian, _ = problem(1, 4, 200, 2)
    scales = weight_scales(weight, 0, 2, "maxabs")
    codes, steps = gptq(weight, hessian, bits=2, scales=scales, damp=1e-9)
    grid = [np.array([c]) for c in itertools.product((-1, 0, 1), repeat=4)]
    errors = [float(error(weight, c, steps, hessian)[0]) for c in grid]
    found = float(error(weight, codes, steps, hessian)[0])
    assert found >= min(errors) - 1e-9
    assert found <= np.quantile(errors, 0.1)
    same = [e for c, e in zip(grid, errors, strict=True) if (c[0, :3] == codes[0, :3]).all()]
    assert found == pytest.approx(min(same))


def test_the_running_sum_is_the_closed_form_error():
    """sum of e_j^2 over columns is the error in the norm of the damped H: U makes it a sum of squares."""
    from netsuke.methods.quantize.gptq import _factor

    _, hessian, _ = problem(1, 12, 300, 3)
    upper = _factor(hessian, 0.01)
    damped = hessian + 0.01 * np.mean(np.diag(hessian)) * np.eye(12)
    np.testing.assert_allclose(upper.T @ upper, np.linalg.inv(damped), rtol=1e-8, atol=1e-12)
    assert np.allclose(upper, np.triu(upper))


def test_dead_columns_get_zero_and_leave_the_rest_alone():
    weight, hessian, _ = problem(8, 10, 300, 4)
    hessian[3], hessian[:, 3] = 0, 0
    codes, _ = gptq(weight, hessian, bits=4)
    assert not codes[:, 3].any()
    kept = [i for i in range(10) if i != 3]
    scales = weight_scales(np.where(np.arange(10) == 3, 0, weight), 0, 4, "mse")
    alone, _ = gptq(weight[:, kept], hessian[np.ix_(kept, kept)], bits=4, scales=scales, damp=0.0)
    both, _ = gptq(weight, hessian, bits=4, scales=scales, damp=0.0)
    np.testing.assert_array_equal(both[:, kept], alone)


def test_groups_have_scales_of_their_own_and_lower_error():
    weight, hessian, _ = problem(16, 64, 600, 5)
    weight[:, :16] *= 20
    whole, one = gptq(weight, hessian, bits=4)
    parts, four = gptq(weight, hessian, bits=4, group=16)
    assert (one.shape, four.shape) == ((16, 1), (16, 4))
    assert error(weight, parts, four, hessian).sum() < error(weight, whole, one, hessian).sum()


def test_impossible_input_is_refused_all_at_once():
    weight, hessian, _ = problem(4, 6, 50, 6)
    hessian[0, 0] = np.nan
    with pytest.raises(UsageError) as caught:
        gptq(weight, hessian, bits=9, group=4, scales=np.ones(3, np.float32), damp=-1.0)
    assert len(caught.value.problems) == 5


@given(st.integers(2, 6), st.integers(1, 6), st.integers(1, 12), st.booleans(), st.integers(0, 999))
def test_codes_are_in_range_for_any_rank(bits, rows, columns, act_order, seed):
    weight, hessian, _ = problem(rows, columns, max(1, columns // 2), seed)  # H is singular: damping must cope
    codes, scales = gptq(weight, hessian, bits=bits, act_order=act_order)
    assert codes.dtype == np.int8
    assert np.abs(codes.astype(int)).max() <= 2 ** (bits - 1) - 1
    assert np.isfinite(scales).all()


def test_a_singular_hessian_without_damping_is_refused():
    weight, hessian, _ = problem(3, 8, 2, 7)
    with pytest.raises(UsageError, match="larger damp"):
        gptq(weight, hessian - 1e-6 * np.eye(8), bits=4, damp=0.0)
