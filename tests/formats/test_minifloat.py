"""Floats of 4 to 8 bits against torch and ml_dtypes: every code, every rounding boundary."""

import ml_dtypes
import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from netsuke.core.errors import UsageError
from netsuke.formats import E2M1, E3M2, E4M3, E5M2, MINIFLOATS, f32_to_bf16, round_bf16, round_minifloat, search_bias
from netsuke.formats.minifloat import decode, encode, finite_codes

PEERS = {
    "e4m3": ml_dtypes.float8_e4m3fn,
    "e5m2": ml_dtypes.float8_e5m2,
    "e3m2": ml_dtypes.float6_e3m2fn,
    "e2m1": ml_dtypes.float4_e2m1fn,
}
FORMS = list(MINIFLOATS.values())


def same(a, b):
    a, b = np.asarray(a, np.float32), np.asarray(b, np.float32)
    return bool(((a == b) & (np.signbit(a) == np.signbit(b)) | (np.isnan(a) & np.isnan(b))).all())


def interesting(form):
    """Every finite number, the middles between neighbours, and the floats right beside both."""
    values = np.unique(decode(finite_codes(form), form))
    middles = (values[1:].astype(np.float64) + values[:-1]) / 2
    points = np.concatenate([values, middles]).astype(np.float32)
    return np.concatenate([points, np.nextafter(points, np.float32(np.inf)), np.nextafter(points, np.float32(-np.inf))])


@pytest.mark.parametrize("form", FORMS, ids=lambda f: f.name)
def test_every_code_is_the_number_of_the_peer(form):
    codes = np.arange(2**form.bits, dtype=np.uint8)
    assert same(decode(codes, form), codes.view(PEERS[form.name]).astype(np.float32))


@pytest.mark.parametrize("form", FORMS, ids=lambda f: f.name)
def test_nearest_is_the_rounding_of_the_peer(form):
    x = interesting(form)
    with np.errstate(over="ignore", invalid="ignore"):
        expected = x.astype(PEERS[form.name]).astype(np.float32)
    inside = np.abs(x) <= form.largest
    assert same(round_minifloat(x[inside], form), expected[inside])
    assert np.abs(round_minifloat(x[~inside], form)).tolist() == [form.largest] * int((~inside).sum())


@pytest.mark.parametrize(("form", "dtype"), [(E4M3, torch.float8_e4m3fn), (E5M2, torch.float8_e5m2)])
def test_without_saturation_as_the_peers(form, dtype):
    x = np.concatenate([interesting(form), np.float32([np.inf, -np.inf, np.nan, 1e30, -1e30, 0.0, -0.0])])
    with np.errstate(over="ignore", invalid="ignore"):
        assert same(round_minifloat(x, form, saturate=False), x.astype(PEERS[form.name]).astype(np.float32))
    x = x[np.abs(x) <= form.largest]  # what torch does beyond has changed between its versions
    assert same(round_minifloat(x, form), torch.from_numpy(x).to(dtype).float().numpy())


@given(
    st.sampled_from(FORMS),
    st.floats(width=32, allow_nan=False, allow_infinity=False),
    st.floats(0, 1, exclude_max=True),
)
def test_roundings_pick_a_neighbour(form, x, u):
    values = np.unique(decode(finite_codes(form), form)).astype(np.float64)
    clipped = float(np.clip(x, -form.largest, form.largest))
    below, above = values[values <= clipped].max(), values[values >= clipped].min()
    down = round_minifloat(np.float32([x]), form, "zero")[0]
    assert down == (below if x >= 0 else above)
    random = round_minifloat(np.float32([x]), form, "stochastic", uniform=np.array([u]))[0]
    fraction = 0.0 if above == below else (clipped - below) / (above - below)
    fraction = fraction if x >= 0 else 1 - fraction if above != below else 0.0
    farther = fraction + u >= 1
    assert random == ((above if farther else below) if x >= 0 else (below if farther else above))


def test_stochastic_rounding_is_unbiased():
    x = np.full(200_000, 0.3, np.float32)
    u = np.random.default_rng(0).random(x.size)
    assert abs(float(round_minifloat(x, E2M1, "stochastic", uniform=u).mean()) - 0.3) < 0.002
    assert abs(float(round_bf16(x * 1.001, "stochastic", uniform=u).mean(dtype=np.float64)) - 0.3003) < 1e-5


@given(st.lists(st.floats(width=32), min_size=1, max_size=20), st.floats(0, 1, exclude_max=True))
def test_bfloat16_roundings(numbers, u):
    x = np.float32(numbers)
    assert same(round_bf16(x), torch.from_numpy(x).to(torch.bfloat16).float().numpy())
    cut = (x.view(np.uint32) & np.uint32(0xFFFF0000)).view(np.float32)
    assert same(round_bf16(x, "zero"), np.where(np.isnan(x), np.float32(np.nan), cut))
    up = f32_to_bf16(x, "stochastic", uniform=np.full(x.shape, u)).astype(int) - f32_to_bf16(x, "zero")
    expected = ((x.view(np.uint32) & 0xFFFF) + np.floor(u * 65536) >= 65536) & np.isfinite(x)
    assert up.tolist() == expected.astype(int).tolist()


def test_bias_search_finds_the_range_of_the_numbers():
    rng = np.random.default_rng(0)
    x = rng.normal(0, 1e-3, 4096).astype(np.float32)
    for form in FORMS:
        found = search_bias(x, form)
        errors = {b: float(np.square(round_minifloat(x, form.with_bias(b)) - x).sum()) for b in range(-10, 40)}
        assert errors[found.bias] == min(errors.values())
    assert search_bias(np.zeros(3, np.float32), E3M2) == E3M2


def test_what_a_format_cannot_hold_is_refused():
    with pytest.raises(UsageError, match="no NaN"):
        encode(np.float32([np.nan]), E2M1)
    with pytest.raises(UsageError, match="neither infinity nor NaN"):
        encode(np.float32([100.0]), E2M1, saturate=False)
    with pytest.raises(UsageError, match="NaN or infinite"):
        search_bias(np.float32([np.inf]), E4M3)
    with pytest.raises(ValueError, match="uniform"):
        encode(np.float32([1.0]), E4M3, "stochastic")
    with pytest.raises(ValueError, match="rounding"):
        encode(np.float32([1.0]), E4M3, "up")
