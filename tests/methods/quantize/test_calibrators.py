"""Calibrators against what NumPy and SciPy say about the full data."""

import itertools
import tracemalloc

import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from scipy.special import rel_entr

from netsuke.core.errors import UsageError
from netsuke.methods.quantize import entropy, minmax, moving_average, mse, percentile
from netsuke.methods.quantize._codes import affine, fake_quantize
from netsuke.methods.quantize._histogram import HALF, Histogram
from netsuke.methods.quantize._statistics import STATE_BYTES, Statistics

floats = st.floats(-1e4, 1e4, width=32).map(lambda v: 0.0 if abs(v) < 1e-25 else v)
data = arrays(np.float32, st.integers(1, 200), elements=floats)
cuts = st.lists(st.integers(0, 200), max_size=4)


SHAPES = ("normal", "relu", "heavy", "negative", "shifted")


def chunks(x, at):
    bounds = [0, *sorted(min(c, len(x)) for c in at), len(x)]
    return [x[a:b] for a, b in itertools.pairwise(bounds)]


def statistics(x, at=(), **options):
    found = Statistics("t", histogram=True, **options)
    for part in chunks(x, at):
        found.add(part)
    return found


@given(data, cuts)
def test_minmax_is_the_extreme_values_with_zero(x, at):
    assert minmax.apply(statistics(x, at)) == (min(0.0, float(x.min())), max(0.0, float(x.max())))


@given(st.lists(data, min_size=1, max_size=5), st.floats(0, 0.99))
def test_moving_average_follows_its_recurrence(batches, momentum):
    found = Statistics("t", momentum=momentum)
    for batch in batches:
        found.add(batch)
    low, high = float(batches[0].min()), float(batches[0].max())
    for batch in batches[1:]:
        low = momentum * low + (1 - momentum) * float(batch.min())
        high = momentum * high + (1 - momentum) * float(batch.max())
    assert moving_average.apply(found) == pytest.approx((min(0.0, low), max(0.0, high)))


@given(data, cuts)
def test_histogram_is_numpys_at_its_final_width(x, at):
    found = statistics(x, at).histogram
    nonzero = x[x != 0].astype(np.float64)
    assert found.zeros == x.size - nonzero.size
    assert found.total == x.size
    if nonzero.size == 0:
        return
    expected = np.bincount(np.floor(nonzero / found.width).astype(int) + HALF, minlength=2 * HALF)
    np.testing.assert_array_equal(found.counts, expected)
    # the width is the smallest power of two whose range holds the data
    assert np.abs(nonzero).max() < found.width * HALF
    assert np.abs(nonzero).max() >= found.width * HALF / 2
    assert np.log2(found.width) == np.round(np.log2(found.width))


@given(data, cuts, cuts, st.randoms())
def test_histogram_does_not_depend_on_batches_or_order(x, first, second, random):
    other = x.copy()
    random.shuffle(other)
    a, b = statistics(x, first).histogram, statistics(other, second).histogram
    assert (a.width, a.zeros) == (b.width, b.zeros)
    np.testing.assert_array_equal(a.counts, b.counts)


def test_histogram_of_more_than_one_slice():
    x = np.random.default_rng(0).standard_normal((3, 700_001)).astype(np.float32)
    found = Histogram()
    found.add(x)
    assert found.total == x.size
    expected = np.bincount(np.floor(x.reshape(-1) / found.width).astype(int) + HALF, minlength=2 * HALF)
    np.testing.assert_array_equal(found.counts, expected)


@given(data, st.floats(0, 1))
def test_quantile_is_numpys_to_one_bin(x, share):
    found = statistics(x).histogram
    got = found.quantile(share)
    # the histogram cannot say more than the bin: both neighbouring order statistics bound the answer
    low, high = (float(np.quantile(x, share, method=m)) for m in ("lower", "higher"))
    below = float(np.sort(x)[max(0, int(np.ceil(share * x.size)) - 1)])
    assert min(low, below) - found.width <= got <= max(high, below) + found.width


@given(data, st.sampled_from([90.0, 99.0, 99.9, 100.0]))
def test_percentile_stays_within_what_was_seen_and_grows(x, percent):
    found = statistics(x)
    low, high = percentile.apply(found, percentile.Percentile(percent))
    wide = minmax.apply(found)
    assert wide[0] <= low <= 0 <= high <= wide[1]
    tight = percentile.apply(found, percentile.Percentile(80.0))
    assert low <= tight[0]
    assert tight[1] <= high


def full_error(x, low, high, bits, norm):
    scale, zero = affine(low, high, bits)
    return float((np.abs(x - fake_quantize(x, scale, zero, bits).astype(np.float64)) ** norm).mean())


@pytest.mark.parametrize("bits", [8, 4])
@pytest.mark.parametrize("norm", [2.0, 2.4])
@pytest.mark.parametrize("shape", SHAPES)
def test_mse_is_near_the_best_of_the_grid_on_all_data(bits, norm, shape):
    rng = np.random.default_rng(0)
    x = rng.standard_normal(20_000)
    x = {"relu": np.maximum(x, 0), "heavy": x**5, "negative": -np.abs(x), "shifted": x + 3}.get(shape, x).astype(
        np.float32
    )
    found = statistics(x, (7000,))
    low, high = mse.apply(found, mse.Mse(norm), bits=bits)
    wide = minmax.apply(found)
    grid = [full_error(x, wide[0] * (1 - 0.01 * i), wide[1] * (1 - 0.01 * i), bits, norm) for i in range(80)]
    assert full_error(x, low, high, bits, norm) <= min(grid) * 1.01
    if shape == "heavy" and bits == 4:
        assert high < 0.9 * wide[1]


@given(data)
def test_mse_range_is_a_shrunken_minmax(x):
    found = statistics(x)
    low, high = mse.apply(found)
    wide = minmax.apply(found)
    shrink = (high - low) / (wide[1] - wide[0]) if wide[1] > wide[0] else 1.0
    assert 0.2 <= shrink <= 1.0 + 1e-12
    assert (low, high) == pytest.approx((wide[0] * shrink, wide[1] * shrink))


@given(arrays(np.float64, st.integers(20, 60), elements=st.integers(0, 50).map(float)), st.integers(2, 16))
def test_divergence_is_scipys(counts, levels):
    assume(counts[: levels + 2].sum() > 0)
    end = levels + 2
    p = counts[:end].copy()
    p[-1] += counts[end:].sum()
    q = np.zeros(end)
    runs = np.minimum(np.arange(end) * levels // end, levels - 1)
    for run in range(levels):
        members = np.flatnonzero((runs == run) & (counts[:end] > 0))
        if members.size:
            q[members] = counts[:end][runs == run].sum() / members.size
    p, q = p / p.sum(), q / max(q.sum(), 1.0)
    expected = rel_entr(p, np.where(p > 0, np.maximum(q, 1e-9), 1.0)).sum()
    assert entropy.divergence(counts, end, levels) == pytest.approx(expected)


def test_entropy_clips_outliers_and_keeps_a_flat_distribution():
    rng = np.random.default_rng(0)
    flat = rng.uniform(0, 1, 200_000).astype(np.float32)
    assert entropy.apply(statistics(flat))[1] > 0.95
    spiked = np.concatenate([rng.standard_normal(200_000), [60.0]]).astype(np.float32)
    low, high = entropy.apply(statistics(spiked))
    assert 2 < high < 20
    assert -20 < low < -2


@pytest.mark.parametrize("method", [minmax, moving_average, percentile, mse, entropy])
def test_zero_range(method):
    found = statistics(np.zeros(10, np.float32))
    assert method.apply(found) == (0.0, 0.0)
    assert affine(0.0, 0.0) == (1.0, 0)


@pytest.mark.parametrize("method", [minmax, moving_average, percentile, mse, entropy])
@given(data)
def test_every_range_contains_zero_and_stays_inside_what_was_seen(method, x):
    low, high = method.apply(statistics(x))
    assert min(0.0, float(x.min())) <= low <= 0.0 <= high <= max(0.0, float(x.max()))


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_not_finite_names_the_tensor(bad):
    found = Statistics("layer1.relu")
    found.add(np.zeros(4, np.float32))
    with pytest.raises(UsageError, match=r"tensor layer1\.relu"):
        found.add(np.array([1, bad, 2], np.float32))


@pytest.mark.parametrize(
    "make", [lambda: percentile.Percentile(40.0), lambda: mse.Mse(0.5), lambda: moving_average.MovingAverage(1.0)]
)
def test_options_are_checked(make):
    with pytest.raises(UsageError, match="allowed"):
        make()


def test_empty_batches_are_nothing():
    found = statistics(np.zeros(0, np.float32))
    assert found.count == 0


def test_histogram_calibrators_insist_on_a_histogram():
    with pytest.raises(ValueError, match="histogram"):
        mse.apply(Statistics("t"))


@pytest.mark.parametrize("method", [minmax, moving_average, percentile, mse, entropy])
def test_memory_does_not_grow_with_the_data(method):
    rng = np.random.default_rng(0)
    found = Statistics("t", histogram="histogram" in method.METHOD.tags)
    used = []
    tracemalloc.start()
    try:
        for part in range(40):
            found.add(rng.standard_normal(20_000).astype(np.float32) * (1 + part))
            used.append(tracemalloc.get_traced_memory()[0])
    finally:
        tracemalloc.stop()
    assert found.count == 800_000
    assert max(used[1:]) < used[0] + 10_000  # a batch takes 80,000 bytes
    assert sum(a.nbytes for a in found.state().values()) <= STATE_BYTES
    low, high = method.apply(found)
    assert low < 0 < high


def test_a_range_is_found_again_after_new_data():
    found = statistics(np.ones(8, np.float32))
    found.known["key", "", 8] = (0.0, 1.0)
    found.add(np.full(8, 2, np.float32))
    assert not found.known
