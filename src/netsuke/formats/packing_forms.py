"""Two further ways to store s8 codes, where they take fewer bytes than b bits a code (docs/format.md section 3).

ternary   five codes -1, 0, 1 a byte: 1.6 bits a code
salient   two levels a row and one bit for every code, but for exceptions, which a bitmap marks and 8 bits hold
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from netsuke.formats.packing import pack, packed_bytes, unpack

Array = npt.NDArray[Any]
FORM_BITS = {"ternary": 2, "salient": 8}  # the width of the codes that stand in each
FORMS = tuple(FORM_BITS)
TRITS = 5
_POWERS = 3 ** np.arange(TRITS, dtype=np.int64)
_LOOKED_AT = 16  # rows that tell whether it is worth counting the codes of all
_MIN_SHARE = 0.5  # of codes on their row's two levels, below which the bitmap cannot pay for itself


def ternary_bytes(count: int) -> int:
    """Bytes of `count` ternary codes."""
    return -(-count // TRITS)


def is_ternary(codes: Array) -> bool:
    """True for s8 codes that are all -1, 0 or 1."""
    return codes.dtype == np.int8 and codes.size > 0 and int(codes.min()) >= -1 and int(codes.max()) <= 1


def pack_ternary(codes: Array) -> Array:
    """s8 codes -1, 0, 1 of any shape (row-major) -> bytes: sum of (code + 1) 3^i, i = 0 .. 4; no code counts 0.

    Raises ValueError when there is another code.
    """
    flat = np.ascontiguousarray(codes, np.int8).reshape(-1)
    if flat.size and not is_ternary(flat):
        raise ValueError("ternary codes are -1, 0 and 1")
    fives = np.zeros((ternary_bytes(flat.size), TRITS), np.int64)
    fives.reshape(-1)[: flat.size] = flat.astype(np.int64) + 1
    return np.asarray(fives @ _POWERS, np.uint8)


def unpack_ternary(data: Array, count: int) -> Array:
    """The inverse of `pack_ternary`: s8 [count]. Raises ValueError where the bytes do not hold `count` codes."""
    data = np.ascontiguousarray(data, np.uint8).reshape(-1)
    if data.size != ternary_bytes(count):
        raise ValueError(f"{count} ternary codes take {ternary_bytes(count)} bytes, got {data.size}")
    used = count % TRITS or TRITS
    if data.size and (int(data.max()) >= 3**TRITS or int(data[-1]) >= 3**used):
        raise ValueError("a byte is no five ternary codes")
    digits = data[:, None].astype(np.int64) // _POWERS % 3
    return np.asarray(digits.reshape(-1)[:count] - 1, np.int8)


def row_levels(codes: Array) -> Array:
    """The two most frequent codes of each row of s8 [N, ...], ascending, s8 [N, 2]; of equals the lower one."""
    rows = codes.reshape(len(codes), -1).astype(np.int64)
    index = np.arange(len(rows))
    counts = np.bincount((rows + 128 + 256 * index[:, None]).reshape(-1), minlength=256 * len(rows)).reshape(-1, 256)
    first = counts.argmax(1)
    counts[index, first] = -1
    return np.sort(np.stack([first, counts.argmax(1)], 1) - 128, 1).astype(np.int8)


def salient_bytes(codes: Array) -> int | None:
    """Bytes of s8 [N, ...] in this form; None where it is clear that the form does not pay."""
    if codes.dtype != np.int8 or not codes.ndim or not codes.size:
        return None
    some = codes[:: max(1, len(codes) // _LOOKED_AT)]
    if _plain(some, row_levels(some)).mean() < _MIN_SHARE:
        return None
    plain, map_bytes = int(_plain(codes, row_levels(codes)).sum()), packed_bytes(codes.size, 1)
    return 2 * len(codes) + (map_bytes if plain < codes.size else 0) + packed_bytes(plain, 1) + codes.size - plain


def _plain(codes: Array, levels: Array) -> Array:
    """Where a code is one of its row's levels; bool [N, columns]."""
    rows = codes.reshape(len(codes), -1)
    return np.asarray((rows == levels[:, :1]) | (rows == levels[:, 1:]))


def pack_salient(codes: Array) -> Array:
    """s8 [N, ...] -> levels (2 bytes a row), bitmap of exceptions if there are any, a bit for every other code (1: the
    higher level), exceptions; each part starts at a byte."""
    levels = row_levels(codes)
    plain, rows = _plain(codes, levels), codes.reshape(len(codes), -1)
    signs = (rows == levels[:, 1:])[plain]
    bitmap = np.zeros(0, np.uint8) if plain.all() else pack(~plain, 1)
    parts = (levels.reshape(-1).view(np.uint8), bitmap, pack(signs, 1), rows[~plain].view(np.uint8))
    return np.concatenate([np.ascontiguousarray(part, np.uint8) for part in parts])


def unpack_salient(data: Array, shape: Sequence[int]) -> Array:
    """The inverse of `pack_salient`: s8 of `shape`. Raises ValueError where the bytes do not hold these codes."""
    data = np.ascontiguousarray(data, np.uint8).reshape(-1)
    count = int(np.prod(shape, dtype=np.int64))
    if not shape or count < 1:
        raise ValueError("the form salient needs rows of codes")
    first, middle = 2 * shape[0], 2 * shape[0] + packed_bytes(count, 1)
    if data.size < middle:
        raise ValueError("salient codes are cut short")
    if data.size == middle:  # no exceptions, no bitmap
        middle, marked = first, np.zeros(count, bool)
    else:
        marked = unpack(data[first:middle], 1, count).astype(bool)
        if not marked.any():
            raise ValueError("a bitmap without exceptions")
    plain = count - int(marked.sum())
    last = middle + packed_bytes(plain, 1)
    if data.size != last + count - plain:
        raise ValueError(f"{count - plain} exceptions among {count} codes take {last + count - plain} bytes")
    levels = data[:first].view(np.int8).reshape(shape[0], 2)
    codes = np.empty(count, np.int8)
    row = np.flatnonzero(~marked) // (count // shape[0])
    codes[~marked] = levels[row, unpack(data[middle:last], 1, plain)]
    codes[marked] = data[last:].view(np.int8)
    return codes.reshape(tuple(shape))


def smallest_form(codes: Array, limit: int) -> tuple[str, int] | None:
    """The form that takes fewer than `limit` bytes, and how many; None when there is none. Ternary goes first."""
    if is_ternary(codes):
        size = ternary_bytes(codes.size)
        return ("ternary", size) if size < limit else None
    found = salient_bytes(codes)
    return ("salient", found) if found is not None and found < limit else None


def pack_form(codes: Array, form: str) -> Array:
    """The bytes of s8 codes in a form."""
    return pack_ternary(codes) if form == "ternary" else pack_salient(codes)


def unpack_form(data: Array, form: str, shape: Sequence[int]) -> Array:
    """The inverse of `pack_form`: s8 of `shape`. Raises ValueError where the bytes do not hold these codes."""
    if form == "salient":
        return unpack_salient(data, shape)
    return unpack_ternary(data, int(np.prod(shape, dtype=np.int64))).reshape(tuple(shape))
