"""Bit packing against a big Python integer."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from netsuke.formats import STORED_BITS, fewest_bits, pack, pack_codes, packed_bytes, unpack, unpack_codes


@given(st.integers(1, 8).flatmap(lambda b: st.tuples(st.just(b), st.lists(st.integers(0, 2**b - 1), max_size=40))))
def test_round_trip_and_layout(case):
    bits, codes = case
    data = pack(np.array(codes, np.uint8), bits)
    number = sum(code << (i * bits) for i, code in enumerate(codes))
    assert data.tobytes() == number.to_bytes(packed_bytes(len(codes), bits), "little")
    assert unpack(data, bits, len(codes)).tolist() == codes


def test_what_does_not_fit_is_refused():
    with pytest.raises(ValueError, match="does not fit"):
        pack(np.array([4], np.uint8), 2)
    with pytest.raises(ValueError, match="take 2 bytes"):
        unpack(np.zeros(3, np.uint8), 3, 5)
    with pytest.raises(ValueError, match=r"1\.\.8"):
        pack(np.zeros(1, np.uint8), 9)


# The vectors of runtime/formats/test_packing.cc.
VECTORS = [
    (1, [1, -1, -1, 1, 1, 1, -1, 1, -1, 1], "b902"),
    (2, [1, 0, -1, -2, 1], "b101"),
    (3, [3, -4, -1, 0, 1, 2, -2, -3, 3], "e311b903"),
    (4, [7, -8, -1, 0, 3], "870f03"),
    (5, [15, -16, -1, 0, 1, 2, -2, -3, 9], "0f7e1084ef09"),
    (6, [31, -32, -1, 0, 5], "1ff80305"),
]


@pytest.mark.parametrize(("bits", "codes", "data"), VECTORS)
def test_signed_codes_as_the_runtime_reads_them(bits, codes, data):
    array = np.array(codes, np.int8)
    assert pack_codes(array, bits).tobytes().hex() == data
    assert unpack_codes(np.frombuffer(bytes.fromhex(data), np.uint8), bits, [len(codes)]).tolist() == codes
    assert fewest_bits(array) == bits


@given(st.lists(st.integers(-128, 127), max_size=30), st.sampled_from([1, 2, 3, 4, 5, 6, 8]))
def test_fewest_bits_hold_the_codes_and_one_width_less_does_not(codes, bits):
    codes = np.array(codes, np.int8) >> (8 - bits)
    least = fewest_bits(codes)
    assert np.array_equal(unpack_codes(pack_codes(codes, least), least, codes.shape), codes)
    for width in STORED_BITS[: STORED_BITS.index(least)]:
        with pytest.raises(ValueError, match=r"fit|one bit"):
            pack_codes(codes, width)


def test_u8_codes_and_set_padding_bits():
    codes = np.array([0, 5, 7], np.uint8)
    assert fewest_bits(codes) == 3
    assert unpack_codes(pack_codes(codes, 3), 3, [3], signed=False).tolist() == [0, 5, 7]
    with pytest.raises(ValueError, match="unused bit"):
        unpack(np.array([0, 0x80], np.uint8), 3, 3)
