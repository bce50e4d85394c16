"""Codes of b bits, 1 <= b <= 8, in a byte string: code i takes bits i*b .. i*b + b - 1; bit 0 is byte 0's lowest.

Eight codes of b bits are b bytes, so a group of eight is one 64-bit number: packing and unpacking are shifts of it.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[Any]
# Widths in which constants are stored; 7 bits would save an eighth and no method makes them.
STORED_BITS = (1, 2, 3, 4, 5, 6, 8)


def _check(bits: int) -> None:
    if not 1 <= bits <= 8:
        raise ValueError(f"bits must be 1..8, got {bits}")


def packed_bytes(count: int, bits: int) -> int:
    """Bytes taken by `count` codes."""
    _check(bits)
    return (count * bits + 7) // 8


def pack(codes: Array, bits: int) -> Array:
    """u8 codes of any shape (row-major order) -> bytes, u8 [packed_bytes]. Unused high bits of the last byte are 0.

    Raises ValueError when a code does not fit in `bits` bits.
    """
    _check(bits)
    flat = np.ascontiguousarray(codes, np.uint8).reshape(-1)
    if bits < 8 and flat.size and int(flat.max()) >> bits:
        raise ValueError(f"code {int(flat.max())} does not fit in {bits} bits")
    eights = np.zeros((-(-flat.size // 8), 8), np.uint8)
    eights.reshape(-1)[: flat.size] = flat
    words = np.zeros(len(eights), "<u8")
    for i in range(8):
        words |= eights[:, i].astype("<u8") << np.uint64(i * bits)
    data = words.view(np.uint8).reshape(-1, 8)[:, :bits]
    return np.ascontiguousarray(data).reshape(-1)[: packed_bytes(flat.size, bits)]


def unpack(data: Array, bits: int, count: int) -> Array:
    """The inverse of `pack`: u8 [count].

    Raises ValueError when `count` codes need another number of bytes, and when an unused bit of the last one is set.
    """
    data = np.ascontiguousarray(data, np.uint8).reshape(-1)
    if data.size != packed_bytes(count, bits):
        raise ValueError(f"{count} codes of {bits} bits take {packed_bytes(count, bits)} bytes, got {data.size}")
    used = count * bits % 8
    if used and int(data[-1]) >> used:
        raise ValueError("an unused bit behind the last code is set")
    padded = np.zeros((-(-count // 8), 8), np.uint8)
    whole = data.size // bits
    padded[:whole, :bits] = data[: whole * bits].reshape(whole, bits)
    if whole < len(padded):
        padded[whole, : data.size - whole * bits] = data[whole * bits :]
    words = padded.reshape(-1).view("<u8")
    codes = np.empty((len(padded), 8), np.uint8)
    for i in range(8):
        codes[:, i] = (words >> np.uint64(i * bits)) & np.uint64(2**bits - 1)
    return codes.reshape(-1)[:count]


def fewest_bits(codes: Array) -> int:
    """The first of `STORED_BITS` that holds all codes (s8, or u8).

    One bit holds -1 and +1 only; b bits hold -2^(b-1) .. 2^(b-1) - 1 of s8 and 0 .. 2^b - 1 of u8. No codes: 1 bit.
    """
    codes = np.asarray(codes)
    if not codes.size:
        return 1
    low, high = int(codes.min()), int(codes.max())
    if codes.dtype == np.uint8:
        return next(b for b in STORED_BITS if high < 2**b)
    if (low, high) in ((-1, 1), (-1, -1), (1, 1)) and not (codes == 0).any():
        return 1
    return next(b for b in STORED_BITS[1:] if -(2 ** (b - 1)) <= low and high < 2 ** (b - 1))


def pack_codes(codes: Array, bits: int) -> Array:
    """s8 or u8 codes of any shape -> bytes. s8: two's complement of `bits` bits, or at 1 bit 0 for -1 and 1 for +1.

    Raises ValueError when a code does not fit.
    """
    codes = np.ascontiguousarray(codes)
    if codes.dtype == np.uint8:
        return pack(codes, bits)
    _check(bits)
    if bits == 1:
        if codes.size and (np.abs(codes.astype(np.int16)) != 1).any():
            raise ValueError("one bit holds -1 and 1 only")
        return pack((codes > 0).astype(np.uint8), 1)
    if codes.size and not (-(2 ** (bits - 1)) <= int(codes.min()) and int(codes.max()) < 2 ** (bits - 1)):
        raise ValueError(f"a code of {int(codes.min())}..{int(codes.max())} does not fit in {bits} bits")
    return pack(codes.view(np.uint8) & np.uint8(2**bits - 1), bits)


def unpack_codes(data: Array, bits: int, shape: Sequence[int], *, signed: bool = True) -> Array:
    """The inverse of `pack_codes`: s8 (signed) or u8 of `shape`. Raises ValueError as `unpack` does."""
    plain = unpack(data, bits, int(np.prod(shape, dtype=np.int64))).reshape(tuple(shape))
    if not signed:
        return plain
    codes = plain.view(np.int8)
    if bits == 1:
        return np.asarray(2 * codes - np.int8(1), np.int8)
    return np.asarray((codes << np.int8(8 - bits)) >> np.int8(8 - bits), np.int8)
