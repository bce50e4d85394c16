"""`Dataset`: a stream of samples with facts about itself."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Mapping, Sequence

import numpy as np
import numpy.typing as npt

from netsuke.core.errors import Problem, UsageError
from netsuke.core.seeds import generator
from netsuke.data.readers import ArrayReader, ready
from netsuke.data.samples import CHUNK, AnyArray, Reader, fields, pack


class Dataset:
    """Samples ready for a network: float32 (or integer tokens) in the network's layout, in a fixed order.

    Samples of a network with several inputs come as structured arrays with one field per input (`pack`, `fields`).

    source   where it came from, as typed
    count    number of samples
    labels   True when labels are known
    sha256   of shapes, dtypes and bytes of all samples and labels, in order (computed on first use)
    """

    def __init__(
        self,
        reader: Reader,
        source: str,
        *,
        transform: Callable[[AnyArray], AnyArray] | None = None,
        wanted: npt.NDArray[np.int64] | None = None,
    ) -> None:
        self.reader = reader
        self.source = source
        self.transform = transform
        self.wanted = wanted
        self._sha256: str | None = None
        if self.count == 0:
            raise UsageError(Problem("the data set is empty", where=source, allowed="at least one sample"))

    @classmethod
    def from_arrays(
        cls, x: AnyArray | Mapping[str, AnyArray], y: AnyArray | None = None, source: str = "arrays"
    ) -> Dataset:
        """A data set of arrays in memory: x [N, ...] float32 or int (by name for several inputs), y [N] or None."""
        x = pack({name: np.asarray(array) for name, array in x.items()}) if isinstance(x, Mapping) else x
        return cls(ArrayReader(x, y, source), source, transform=lambda part: ready(part, source))

    @property
    def count(self) -> int:
        return self.reader.count if self.wanted is None else len(self.wanted)

    @property
    def labels(self) -> bool:
        return self.reader.labels

    def __len__(self) -> int:
        return self.count

    def batches(self, size: int = CHUNK) -> Iterator[tuple[AnyArray, AnyArray | None]]:
        """(x, y) with `size` samples each, the last may be shorter; y is None without labels.

        UsageError naming the sample when a value is NaN or infinite.
        """
        if size < 1:
            raise UsageError(Problem("batch size", got=str(size), allowed="at least 1"))
        start = 0
        for x, y in self.reader.scan(size, self.wanted):
            ready = self.transform(x) if self.transform else x
            _finite(ready, start, self.source)
            yield ready, y
            start += len(ready)

    @property
    def shapes(self) -> dict[str, tuple[int, ...]]:
        """Shape of one sample by input name, as the network gets it; "" names the only input."""
        return {name: tuple(part.shape[1:]) for name, part in fields(next(self.batches(1))[0]).items()}

    @property
    def shape(self) -> tuple[int, ...]:
        """Shape of one sample of a network with one input; UsageError when the data are for several."""
        shapes = self.shapes
        if len(shapes) > 1:
            raise UsageError(Problem("the data are for several inputs", self.source, ", ".join(shapes), "one input"))
        return next(iter(shapes.values()))

    @property
    def sha256(self) -> str:
        if self._sha256 is None:
            digest = hashlib.sha256()
            for x, y in self.batches(CHUNK):
                for row in x:
                    digest.update(_row_bytes(row))
                if y is not None:
                    digest.update(np.asarray(y, np.int64).tobytes())
            self._sha256 = digest.hexdigest()
        return self._sha256

    def take(self, count: int, seed: int = 0) -> Dataset:
        """At most `count` samples, drawn without replacement with the seed, in their original order."""
        if count < 1:
            raise UsageError(Problem("number of samples", where=self.source, got=str(count), allowed="at least 1"))
        rows = np.arange(self.reader.count, dtype=np.int64) if self.wanted is None else self.wanted
        if count >= len(rows):
            return self
        picked = np.sort(generator(seed, "data.take").choice(rows, size=count, replace=False))
        return Dataset(
            self.reader, f"{self.source} ({count} of {len(rows)}, seed {seed})", transform=self.transform, wanted=picked
        )

    def select(self, rows: Sequence[int] | npt.NDArray[np.int64]) -> Dataset:
        """The samples of these positions, in ascending order."""
        base = np.arange(self.reader.count, dtype=np.int64) if self.wanted is None else self.wanted
        picked = np.sort(base[np.asarray(rows, np.int64)])
        return Dataset(self.reader, f"{self.source} ({len(picked)} rows)", transform=self.transform, wanted=picked)

    def digests(self) -> set[bytes]:
        """A 16-byte digest per sample (inputs only)."""
        return {hashlib.blake2b(_row_bytes(row), digest_size=16).digest() for x, _ in self.batches(CHUNK) for row in x}

    def facts(self) -> dict[str, str | int]:
        """What a plan and a report record about the data."""
        return {"source": self.source, "sha256": self.sha256, "count": self.count}


def overlap(first: Dataset, second: Dataset) -> int:
    """Number of samples of `first` whose input also occurs in `second`: calibration and evaluation should share
    none."""
    known = second.digests()
    return sum(
        hashlib.blake2b(_row_bytes(row), digest_size=16).digest() in known for x, _ in first.batches(CHUNK) for row in x
    )


def _row_bytes(row: AnyArray) -> bytes:
    return f"{row.dtype.str}{row.shape}".encode() + np.ascontiguousarray(row).tobytes()


def _finite(x: AnyArray, start: int, source: str) -> None:
    if x.dtype.names is not None:
        for name in x.dtype.names:
            _finite(np.asarray(x[name]), start, f"{source}, {name}")  # type: ignore[call-overload]
    if not np.issubdtype(x.dtype, np.floating):
        return
    flat = x.reshape(len(x), -1)
    good = np.isfinite(flat).all(axis=1)
    if not good.all():
        bad = np.flatnonzero(~good)
        kind = "NaN" if np.isnan(flat[bad[0]]).any() else "infinity"
        where = f"{source}, sample {start + int(bad[0])}"
        raise UsageError(Problem("a value is not a finite number", where, kind, "finite values", "clean the data"))
