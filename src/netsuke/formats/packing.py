"""Codes of b bits, 1 <= b <= 8, in a byte string: code i takes bits i*b .. i*b + b - 1; bit 0 is byte 0's lowest."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[Any]


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
    planes = np.unpackbits(flat[:, None], axis=1, bitorder="little")[:, :bits]
    return np.packbits(planes.reshape(-1), bitorder="little")


def unpack(data: Array, bits: int, count: int) -> Array:
    """The inverse of `pack`: u8 [count]. Raises ValueError when `count` codes need another number of bytes."""
    data = np.ascontiguousarray(data, np.uint8).reshape(-1)
    if data.size != packed_bytes(count, bits):
        raise ValueError(f"{count} codes of {bits} bits take {packed_bytes(count, bits)} bytes, got {data.size}")
    planes = np.zeros((count, 8), np.uint8)
    planes[:, :bits] = np.unpackbits(data, bitorder="little")[: count * bits].reshape(count, bits)
    return np.packbits(planes, axis=1, bitorder="little")[:, 0]
