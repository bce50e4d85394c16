"""Bit packing against a big Python integer."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from netsuke.formats import pack, packed_bytes, unpack


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
