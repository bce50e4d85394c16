"""Ternary codes five a byte; two levels a row with exceptions."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import array_shapes, arrays

from netsuke.formats.packing_forms import (
    pack_salient,
    pack_ternary,
    row_levels,
    salient_bytes,
    ternary_bytes,
    unpack_salient,
    unpack_ternary,
)

# The vectors of runtime/formats/test_packing.cc.
TERNARY = ([1, 0, -1, 1, 1, -1, 1], "dd06")  # 2 + 3 + 0 + 54 + 162 = 221; 0 + 6
SALIENT = ([[-5, 7, -5, 7, 100], [3, 3, -3, -128, -3]], "fb07fd0310013a6480")


@given(st.lists(st.integers(-1, 1), max_size=40))
def test_ternary_digits_against_a_big_integer(codes):
    data = pack_ternary(np.array(codes, np.int8))
    assert data.size == ternary_bytes(len(codes)) == (len(codes) + 4) // 5
    assert [int(b) for b in data] == [
        sum((c + 1) * 3**i for i, c in enumerate(codes[k : k + 5])) for k in range(0, len(codes), 5)
    ]
    assert unpack_ternary(data, len(codes)).tolist() == codes


@given(arrays(np.int8, array_shapes(min_dims=1, max_dims=4, max_side=6)))
def test_any_codes_survive_as_levels_and_exceptions(codes):
    data = pack_salient(codes)
    assert np.array_equal(unpack_salient(data, codes.shape), codes)
    size = salient_bytes(codes)
    assert size is None or size == data.size


def test_vectors_as_the_runtime_reads_them():
    codes, data = TERNARY
    assert pack_ternary(np.array(codes, np.int8)).tobytes().hex() == data
    codes, data = SALIENT
    assert row_levels(np.array(codes, np.int8)).tolist() == [[-5, 7], [-3, 3]]
    assert pack_salient(np.array(codes, np.int8)).tobytes().hex() == data


def test_damaged_bytes_are_refused():
    with pytest.raises(ValueError, match="ternary codes are"):
        pack_ternary(np.array([2], np.int8))
    for data, count in (([243], 5), ([9], 2), ([0, 0], 5), ([0, 200], 7)):
        with pytest.raises(ValueError, match="ternary codes"):
            unpack_ternary(np.array(data, np.uint8), count)
    good = pack_salient(np.array(SALIENT[0], np.int8))
    for cut in (c for c in range(len(good)) if c != 6):  # six bytes are ten codes without exceptions
        with pytest.raises(ValueError, match=r"cut short|take"):
            unpack_salient(good[:cut], (2, 5))
    good[5] |= 0x80  # behind the ten bits of the bitmap
    with pytest.raises(ValueError, match="unused bit"):
        unpack_salient(good, (2, 5))
    with pytest.raises(ValueError, match="unused bit"):  # behind the three signs
        unpack_salient(np.array([0xFF, 1, 0x08], np.uint8), (1, 3))
    assert unpack_salient(np.array([0xFF, 1, 0x05], np.uint8), (1, 3)).tolist() == [[1, -1, 1]]
    with pytest.raises(ValueError, match="bitmap without"):
        unpack_salient(np.array([0xFF, 1, 0, 0x05], np.uint8), (1, 3))


def test_codes_without_levels_are_not_counted_out():
    assert salient_bytes(np.random.default_rng(0).integers(-127, 128, (32, 300)).astype(np.int8)) is None
    assert salient_bytes(np.zeros((0, 3), np.int8)) is None
