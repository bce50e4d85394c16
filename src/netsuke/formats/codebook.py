"""Arrays of few different vectors as packed indices into a table of them (docs/format.md section 3).

A vector is `length` consecutive elements in row-major order. Entries stand in the order in which they first occur, so
one array has one form; they are compared as bytes, so -0.0 and every NaN come back as they were.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from netsuke.formats.packing import pack, packed_bytes, unpack

Array = npt.NDArray[Any]
MAX_ENTRIES = 256  # one byte an index; larger tables would cost more than they save in networks of this size
MAX_LENGTH = 64  # so that a small file cannot stand for endless weights
LENGTHS = (1, 2, 3, 4, 6, 8, 9, 12, 16, 24, 32)  # of vectors that the writer looks for
_SAMPLE = 4096
_VALUES = 2 * MAX_ENTRIES * LENGTHS[-1]  # elements looked at first: twice what the longest vectors allow


@dataclass(frozen=True)
class Book:
    """entries [k, length], 2 <= k <= 256, of any dtype; indices u8 [vectors]."""

    entries: Array
    indices: Array

    @property
    def bits(self) -> int:
        """Bits of an index: the fewest that hold k values."""
        return index_bits(len(self.entries))

    @property
    def bytes(self) -> int:
        """Bytes in the file: the entries, then the packed indices."""
        return self.entries.nbytes + packed_bytes(self.indices.size, self.bits)

    def decode(self, shape: Sequence[int]) -> Array:
        """The array that the book stands for."""
        return np.ascontiguousarray(self.entries[self.indices]).reshape(tuple(shape))

    def encode(self) -> Array:
        """The bytes of the file, u8 [bytes]."""
        table = np.ascontiguousarray(self.entries).astype(self.entries.dtype.newbyteorder("<"), copy=False)
        return np.concatenate([table.view(np.uint8).reshape(-1), pack(self.indices, self.bits)])


def index_bits(entries: int) -> int:
    """The fewest bits that tell `entries` entries apart."""
    return max(1, (entries - 1).bit_length())


def book_bytes(count: int, entries: int, length: int, item: int) -> int:
    """Bytes of `count` elements of `item` bytes as indices into `entries` vectors of `length`."""
    return entries * length * item + packed_bytes(count // length, index_bits(entries))


def find_book(array: Array, limit: float) -> Book | None:
    """The smallest book of an array, of at most `limit` bytes; None when there is none."""
    best, found = limit, None
    flat = np.ascontiguousarray(array).reshape(-1)
    values = _different(flat)
    for length in LENGTHS:
        if flat.size % length or flat.size < 2 * length:
            continue
        if values > MAX_ENTRIES * length:  # more than 256 vectors of this length can hold
            continue
        if book_bytes(flat.size, 2, length, flat.itemsize) > best:
            continue
        book = _book(flat.reshape(-1, length))
        if book is not None and (book.bytes < best or (found is None and book.bytes <= best)):
            best, found = book.bytes, book
    return found


def _different(flat: Array) -> int:
    """Different elements in a sample of the array: at least as many are in all of it."""
    size = flat.itemsize
    sample = flat[:: max(1, flat.size // _VALUES)]
    return len(np.unique(sample.view(f"u{size}") if size in (1, 2, 4, 8) else sample))


def _book(vectors: Array) -> Book | None:
    """The book of all different rows; None when there are none or too many of them."""
    size = vectors.shape[1] * vectors.itemsize
    keys = vectors.view(f"u{size}" if size in (1, 2, 4, 8) else np.dtype((np.void, size))).reshape(-1)
    step = max(1, keys.size // _SAMPLE)
    if len(np.unique(keys[::step])) > MAX_ENTRIES:
        return None
    different, first, inverse = np.unique(keys, return_index=True, return_inverse=True)
    if not 2 <= len(different) <= MAX_ENTRIES:
        return None
    order = np.argsort(first)
    rank = np.empty(len(order), np.uint8)
    rank[order] = np.arange(len(order))
    return Book(np.ascontiguousarray(vectors[first[order]]), rank[inverse.reshape(-1)])


def decode_book(data: Array, bits: int, entries: Sequence[int], shape: Sequence[int], dtype: str) -> Array:
    """The inverse of `Book.encode`: `dtype` (NumPy's name) of `shape`; entries is [k, length].

    Raises ValueError when the bytes are not as many as the form needs, k and bits do not belong together, an index has
    no entry or an unused bit is set.
    """
    k, length = entries
    count = int(np.prod(shape, dtype=np.int64))
    if not 2 <= k <= MAX_ENTRIES or not 1 <= length <= MAX_LENGTH or index_bits(k) != bits:
        what = "expected 2 to 256 entries of 1 to 64 elements, and the fewest bits that tell them apart"
        raise ValueError(f"{k} entries of {length} elements, indices of {bits} bits: {what}")
    if count % length:
        raise ValueError(f"{count} elements are no vectors of {length}")
    kind = np.dtype(dtype).newbyteorder("<")
    table = k * length * kind.itemsize
    wanted = table + packed_bytes(count // length, bits)
    if data.size != wanted:
        what = f"{k} entries and {count // length} indices of {bits} bits take {wanted} bytes"
        raise ValueError(f"{what}, got {data.size}")
    indices = unpack(data[table:], bits, count // length)
    if indices.size and int(indices.max()) >= k:
        raise ValueError(f"index {int(indices.max())} points behind the {k} entries")
    values = np.frombuffer(np.ascontiguousarray(data[:table]).tobytes(), kind).reshape(k, length)
    return np.ascontiguousarray(values[indices]).reshape(tuple(shape))
