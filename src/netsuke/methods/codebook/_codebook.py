"""A codebook: entries, an index for every weight (or vector of weights), and the bytes of both."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from netsuke.core.errors import Problem, UsageError
from netsuke.formats.packing import pack, packed_bytes, unpack

Vectors = npt.NDArray[np.float64]
Indices = npt.NDArray[np.uint8]


@dataclass(frozen=True)
class Codebook:
    """entries [k, d] and indices [n] of n vectors of length d, with 2 <= k <= 256."""

    entries: npt.NDArray[np.float32]
    indices: Indices

    @property
    def bits(self) -> int:
        """Bits of an index: the fewest that hold k values."""
        return max(1, int(len(self.entries) - 1).bit_length())

    def decode(self) -> npt.NDArray[np.float32]:
        """The vectors [n, d]."""
        return np.asarray(self.entries[self.indices], np.float32)

    def packed(self) -> npt.NDArray[np.uint8]:
        """The indices as bytes, `bits` each, lowest bits first."""
        return pack(self.indices, self.bits)

    @classmethod
    def unpacked(cls, entries: npt.NDArray[np.float32], data: npt.NDArray[np.uint8], count: int) -> Codebook:
        """The codebook of packed indices; UsageError when one of them has no entry."""
        empty = cls(np.asarray(entries, np.float32), np.zeros(0, np.uint8))
        indices = unpack(data, empty.bits, count)
        if count and int(indices.max()) >= len(entries):
            got = f"{int(indices.max())} of {len(entries)} entries"
            raise UsageError(Problem("an index points behind the codebook", got=got))
        return cls(empty.entries, indices)

    def stored_bytes(self, entry_bytes: int = 4) -> int:
        """Bytes of packed indices and entries, `entry_bytes` for each number of an entry."""
        return packed_bytes(len(self.indices), self.bits) + entry_bytes * self.entries.size

    def assigned(self, vectors: Vectors) -> Codebook:
        """The same entries, each vector with the nearest of them (the first of equally near ones)."""
        return Codebook(self.entries, nearest(vectors, self.entries.astype(np.float64)))

    def updated(self, vectors: Vectors, importance: Vectors | None = None) -> Codebook:
        """The same indices, each entry the (weighted) mean of its members; entries without members stay."""
        weights = np.ones(len(vectors)) if importance is None else importance
        totals = np.bincount(self.indices, weights, len(self.entries))
        entries = self.entries.astype(np.float64)
        for axis in range(entries.shape[1]):
            sums = np.bincount(self.indices, weights * vectors[:, axis], len(entries))
            entries[:, axis] = np.where(totals > 0, sums / np.where(totals > 0, totals, 1.0), entries[:, axis])
        return Codebook(entries.astype(np.float32), self.indices)

    def error(self, vectors: Vectors) -> float:
        """Sum of squared differences."""
        return float(((self.decode() - vectors) ** 2).sum())


def nearest(vectors: Vectors, entries: Vectors, block: int = 1 << 16) -> Indices:
    """Index of the nearest entry per vector, in blocks of bounded memory."""
    found = np.empty(len(vectors), np.uint8)
    norms = (entries**2).sum(axis=1)
    for first in range(0, len(vectors), block):
        part = vectors[first : first + block]
        found[first : first + block] = np.argmin(norms - 2 * part @ entries.T, axis=1)
    return found


def kmeans(vectors: Vectors, k: int, rng: np.random.Generator, rounds: int = 50) -> Codebook:
    """Lloyd's algorithm from k-means++ seeds; stops when no index changes. Entries are sorted by their first number.

    UsageError when k is not in 2..256 or there are no vectors.
    """
    problems = []
    if not 2 <= k <= 256:
        problems.append(Problem("entries of a codebook", got=str(k), allowed="2 to 256"))
    if not len(vectors) or not np.isfinite(vectors).all():
        problems.append(Problem("vectors to cluster", got=f"{len(vectors)}, not all finite or none", allowed="finite"))
    if problems:
        raise UsageError(problems)
    book = Codebook(_seeds(vectors, k, rng).astype(np.float32), np.zeros(len(vectors), np.uint8))
    for _ in range(rounds):
        new = book.assigned(vectors)
        if np.array_equal(new.indices, book.indices) and book.indices.any():
            break
        book = new.updated(vectors)
    order = np.argsort(book.entries[:, 0], kind="stable")
    return Codebook(book.entries[order], np.zeros(0, np.uint8)).assigned(vectors)


def _seeds(vectors: Vectors, k: int, rng: np.random.Generator) -> Vectors:
    """k-means++: each further seed is drawn with probability proportional to the squared distance to the nearest."""
    seeds = [vectors[int(rng.integers(len(vectors)))]]
    distance = ((vectors - seeds[0]) ** 2).sum(axis=1)
    for _ in range(k - 1):
        total = distance.sum()
        index = int(rng.choice(len(vectors), p=distance / total)) if total > 0 else int(rng.integers(len(vectors)))
        seeds.append(vectors[index])
        distance = np.minimum(distance, ((vectors - seeds[-1]) ** 2).sum(axis=1))
    return np.array(seeds)
