"""The bound holds for every order of summation and is reached."""

import itertools

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from netsuke.formats import accumulator_bound, matmul_bound

CODE = st.integers(0, 255)


@given(st.lists(st.integers(-128, 127), min_size=1, max_size=6), CODE, CODE, CODE, st.integers(-1000, 1000))
def test_no_subset_of_products_exceeds_the_bound(weights, x_zero, a, b, bias):
    lo, hi = min(a, b), max(a, b)
    bound = int(accumulator_bound(np.array([weights], np.int8), x_zero, lo, hi, np.array([bias]))[0])
    worst = 0
    for codes in itertools.product((lo, hi, x_zero), repeat=len(weights)):
        products = [(x - x_zero) * w for x, w in zip(codes, weights, strict=True)]
        up, down = sum(p for p in products if p > 0), sum(p for p in products if p < 0)
        worst = max(worst, up, -down)
    assert worst + abs(bias) <= bound
    if lo <= x_zero <= hi:
        assert worst + abs(bias) == bound  # tight


def test_bound_of_128_weights_does_not_wrap():
    w = np.full((1, 70000), -128, np.int8)
    assert accumulator_bound(w, 0)[0] == 70000 * 128 * 255


def test_matmul_bound():
    assert matmul_bound(10, 0, 255) == 10 * 255 * 255
    assert matmul_bound(10, 128, 128) == 10 * 128 * 128
