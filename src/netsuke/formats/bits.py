"""Signs packed along channels into 64-bit words: bit c % 64 of word c / 64 is 1 where channel c is +1.

Bits behind the last channel are 0. Words travel as int64, the dtype that programs have; only their bits mean something.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[Any]
WORD = 64


def word_count(channels: int) -> int:
    """64-bit words that hold one bit for each of `channels` channels."""
    return (channels + WORD - 1) // WORD


def pack_bits(bits: Array) -> Array:
    """bool [..., C] -> int64 [..., word_count(C)]; unused high bits of the last word are 0."""
    bits = np.asarray(bits, bool)
    channels = bits.shape[-1]
    width = word_count(channels) * WORD
    padded = np.zeros((*bits.shape[:-1], width), bool)
    padded[..., :channels] = bits
    octets = np.packbits(padded, axis=-1, bitorder="little")
    return np.ascontiguousarray(octets).view("<i8").reshape(*bits.shape[:-1], width // WORD).astype(np.int64)


def unpack_bits(words: Array, channels: int) -> Array:
    """int64 [..., W] -> bool [..., channels], the inverse of `pack_bits`. Raises ValueError when W has another size."""
    words = np.asarray(words, np.int64)
    if words.shape[-1] != word_count(channels):
        raise ValueError(f"{channels} channels take {word_count(channels)} words, got {words.shape[-1]}")
    octets = np.ascontiguousarray(words.astype("<i8")).view(np.uint8).reshape(*words.shape[:-1], words.shape[-1] * 8)
    return np.unpackbits(octets, axis=-1, bitorder="little")[..., :channels].astype(bool)


def spare_bits_clear(words: Array, channels: int) -> bool:
    """True when every bit behind the last channel is 0."""
    spare = words.shape[-1] * WORD - channels
    if spare == 0 or not words.size:
        return True
    last = words[..., -1].astype(np.int64).view(np.uint64)
    return not bool((last >> np.uint64(WORD - spare)).any())
