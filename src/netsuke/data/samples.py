"""What samples are: arrays, several inputs packed as one structured array, and the protocol of a source."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Protocol

import numpy as np
import numpy.typing as npt

from netsuke.core.errors import Problem, UsageError

AnyArray = npt.NDArray[np.generic]
CHUNK = 64  # samples read at a time


class Reader(Protocol):
    """A source of raw samples in a fixed order.

    count   number of samples
    shape   of one raw sample, None for a dimension that differs between samples
    labels  True when y comes along
    scan    yields (x, y) chunks of the rows in `wanted` (sorted; None: all), at most `chunk` rows each
    """

    count: int
    labels: bool

    def scan(self, chunk: int, wanted: npt.NDArray[np.int64] | None) -> Iterator[tuple[AnyArray, AnyArray | None]]: ...


def pack(arrays: Mapping[str, AnyArray]) -> AnyArray:
    """Arrays of several inputs, [N, ...] each, as one structured array [N] with a field per input."""
    counts = {name: len(array) for name, array in arrays.items()}
    if len(set(counts.values())) != 1:
        got = ", ".join(f"{name} {count}" for name, count in counts.items())
        raise UsageError(Problem("inputs with different numbers of samples", got=got))
    kind = np.dtype([(name, array.dtype, array.shape[1:]) for name, array in arrays.items()])
    packed = np.empty(next(iter(counts.values())), kind)
    for name, array in arrays.items():
        packed[name] = array
    return packed


def fields(x: AnyArray) -> dict[str, AnyArray]:
    """The arrays of a batch by input name; "" names the only input of a network."""
    return (
        {"": x}
        if x.dtype.names is None
        else {
            name: np.asarray(x[name])  # type: ignore[call-overload]
            for name in x.dtype.names
        }
    )
