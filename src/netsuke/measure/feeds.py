"""Inputs for timing and probing: made from the ports of a program, with free dimensions filled in."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from netsuke.core.errors import Problem, UsageError
from netsuke.program.model import Port
from netsuke.verify.source import Shapes

Array = np.ndarray[Any, Any]
_DTYPES: dict[str, type] = {
    "f32": np.float32,
    "u8": np.uint8,
    "s8": np.int8,
    "i32": np.int32,
    "i64": np.int64,
    "bool": np.bool_,
}


def concrete_shapes(
    ports: Sequence[Port], given: Shapes | None = None, batch: int | None = None
) -> dict[str, tuple[int, ...]]:
    """Shape of every port. `given` fills free dimensions (key "" for the only port); `batch` replaces the first
    dimension where free.

    All ports that cannot be filled are listed in one UsageError.
    """
    given = dict(given or {})
    problems: list[Problem] = []
    unknown = [n for n in given if n and n not in {p.name for p in ports}]
    problems += [
        Problem("no such input", where="--shape", got=n, allowed=", ".join(p.name for p in ports)) for n in unknown
    ]
    shapes: dict[str, tuple[int, ...]] = {}
    for port in ports:
        wanted = given.get(port.name, given.get("") if len(ports) == 1 else None)
        dims = [d if isinstance(d, int) else None for d in port.shape]
        if wanted is not None:
            if len(wanted) == len(dims) - 1:
                wanted = (1, *wanted)
            if len(wanted) != len(dims) or any(d is not None and d != w for d, w in zip(dims, wanted, strict=True)):
                problems.append(
                    Problem("shape does not fit", where=port.name, got=str(tuple(wanted)), allowed=str(port.shape))
                )
                continue
            dims = list(wanted)
        if dims and not isinstance(port.shape[0], int):
            dims[0] = batch if batch is not None else (dims[0] or 1)
        if any(d is None for d in dims):
            hint = "--shape " + ",".join("1" if d is None else str(d) for d in dims)
            problems.append(Problem("free dimensions need a size", where=port.name, got=str(port.shape), hint=hint))
            continue
        shapes[port.name] = tuple(int(d) for d in dims if d is not None)
    if problems:
        raise UsageError(problems)
    return shapes


def random_feeds(
    ports: Sequence[Port], shapes: Shapes, seed: int = 0, ranges: Mapping[str, tuple[float, float]] | None = None
) -> dict[str, Array]:
    """Float inputs uniform over their range where one is known, else standard normal; codes over their whole range;
    indices 0 and 1, which every table has.
    """
    rng = np.random.Generator(np.random.PCG64(seed))
    feeds: dict[str, Array] = {}
    for port in ports:
        shape, dtype = tuple(shapes[port.name]), _DTYPES[port.dtype]
        if port.dtype == "f32" and port.name in (ranges or {}):
            feeds[port.name] = rng.uniform(*(ranges or {})[port.name], shape).astype(np.float32)
        elif port.dtype == "f32":
            feeds[port.name] = rng.standard_normal(shape, dtype=np.float32)
        elif port.dtype in ("u8", "s8"):
            feeds[port.name] = rng.integers(0, 128, shape).astype(dtype)
        else:
            feeds[port.name] = rng.integers(0, 2, shape).astype(dtype)
    return feeds
