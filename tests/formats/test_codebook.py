"""Arrays as indices into a table: what comes back, what the writer chooses, what a reader refuses."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from netsuke.formats.codebook import LENGTHS, book_bytes, decode_book, find_book, index_bits

DTYPES = {"int8": np.int8, "uint8": np.uint8, "float32": np.float32}


def array(k, length, count, dtype, seed=0):
    rng = np.random.default_rng(seed)
    table = rng.integers(-120, 120, (k, length)).astype(np.int8).view(np.uint8).astype(np.float32).astype(dtype)
    return table[rng.integers(0, k, count)].reshape(-1)


@given(
    st.integers(2, 256),
    st.sampled_from(LENGTHS),
    st.integers(2, 400),
    st.sampled_from(sorted(DTYPES)),
    st.integers(0, 9),
)
def test_what_is_found_comes_back_bit_for_bit_in_the_bytes_it_says(k, length, count, dtype, seed):
    x = array(k, length, count, DTYPES[dtype], seed)
    book = find_book(x, limit=1e9)
    if book is None:
        assert len(np.unique(x.view(f"u{x.itemsize}"))) == 1
        return
    data = book.encode()
    size = book.entries.shape
    assert data.size == book.bytes == book_bytes(x.size, *size, x.itemsize)
    assert 2 <= size[0] <= 256
    back = decode_book(data, book.bits, size, x.shape, dtype)
    np.testing.assert_array_equal(back.view(np.uint8), x.view(np.uint8))
    np.testing.assert_array_equal(book.decode(x.shape).view(np.uint8), x.view(np.uint8))


def test_no_other_length_is_smaller_and_the_limit_is_kept():
    x = array(16, 8, 3000, np.int8)
    book = find_book(x, x.size)
    different = {n: len(np.unique(x.reshape(-1, n), axis=0)) for n in LENGTHS if x.size % n == 0}
    sizes = {n: book_bytes(x.size, k, n, 1) for n, k in different.items() if 2 <= k <= 256}
    assert book.bytes == min(sizes.values())
    assert book.entries.shape == (16, 8)
    assert find_book(x, book.bytes - 1) is None


def test_entries_stand_in_the_order_of_their_first_use_and_signs_of_zero_survive():
    x = np.array([0.0, -0.0, np.nan, 0.0, -0.0, -0.0] * 20, np.float32)
    book = find_book(x, 1e9)
    assert index_bits(len(book.entries)) == book.bits
    back = book.decode(x.shape)
    np.testing.assert_array_equal(np.signbit(back), np.signbit(x))
    first = find_book(np.array([9, 3, 9, 5, 3, 5, 9, 9, 3, 3, 5, 9, 9], np.int8), 1e9)
    assert (first.entries[:, 0].tolist(), first.indices[:4].tolist()) == ([9, 3, 5], [0, 1, 0, 2])


def test_arrays_of_one_value_or_of_many_have_no_table():
    assert find_book(np.zeros(4096, np.float32), 1e9) is None
    assert find_book(np.arange(4096, dtype=np.float32), 4 * 4096) is None
    assert find_book(np.zeros(0, np.int8), 1e9) is None


@pytest.mark.parametrize(
    ("bits", "entries", "shape", "what"),
    [
        (3, (5, 1), (14,), "take 11 bytes"),
        (3, (5, 2), (13,), "no vectors of 2"),
        (4, (5, 1), (12,), "fewest bits"),
        (9, (300, 1), (12,), "2 to 256"),
        (3, (5, 65), (12,), "1 to 64"),
        (2, (3, 1), (12,), "take 6 bytes"),
    ],
)
def test_forms_that_the_bytes_do_not_fit_are_refused(bits, entries, shape, what):
    x = np.array([1, 2, 3, 4, 5, 1, 2, 3, 4, 5, 1, 2], np.int8)
    data = find_book(x, 1e9).encode()
    with pytest.raises(ValueError, match=what):
        decode_book(data, bits, entries, shape, "int8")
    data[-1] |= 0x80
    with pytest.raises(ValueError, match="unused bit"):
        decode_book(data, 3, (5, 1), (12,), "int8")
    spoiled = find_book(x, 1e9).encode()
    spoiled[5] |= 7
    with pytest.raises(ValueError, match="points behind"):
        decode_book(spoiled, 3, (5, 1), (12,), "int8")
