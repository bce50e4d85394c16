"""What the engine's tests share: one-node programs, and the engine beside the reference interpreter."""

from __future__ import annotations

import itertools
from collections.abc import Mapping
from typing import Any

import numpy as np

from netsuke.engine import load
from netsuke.program import interpreter
from netsuke.program.model import Node, Port, Program

Array = np.ndarray[Any, Any]
DTYPES = {"f32": np.float32, "u8": np.uint8, "s8": np.int8, "i32": np.int32, "i64": np.int64, "bool": np.bool_}
NAMES = {np.dtype(value): key for key, value in DTYPES.items()}


def array_of(dtype: str, shape: tuple[int, ...], seed: int = 0) -> Array:
    """Random contents; small integers, so that products of i64 do not overflow."""
    random = np.random.default_rng(seed)
    if dtype == "f32":
        return random.standard_normal(shape).astype(np.float32)
    low = -100 if dtype in ("s8", "i32", "i64") else 0
    return random.integers(low, 2 if dtype == "bool" else 100, shape).astype(DTYPES[dtype])


def one_node(
    op: str,
    feeds: Mapping[str, Array],
    inputs: list[str],
    constants: Mapping[str, Array],
    outputs: list[tuple[str, str, tuple[int | str, ...]]],
    **attrs: Any,
) -> Program:
    """A program of one node. Every dimension of every input is free, under a name of its own."""
    ports = [
        Port(name, NAMES[array.dtype], tuple(f"{name}{d}" for d in range(array.ndim))) for name, array in feeds.items()
    ]
    node = Node(op, op, inputs, [name for name, _, _ in outputs], dict(attrs))
    return Program("test", ports, [Port(*output) for output in outputs], [node], dict(constants))


_NAMES = itertools.count()


def free(rank: int) -> tuple[str, ...]:
    """The shape of an output of this rank whose dimensions are not known beforehand, nor equal to another output's."""
    return tuple(f"free{next(_NAMES)}" for _ in range(rank))


def same_as_interpreter(program: Program, feeds: Mapping[str, Array], **options: Any) -> dict[str, Array]:
    """Engine and interpreter give the same dtypes, shapes and bits; returns what they give."""
    expected = interpreter.run(program, feeds)
    found = load(program, **options).run(feeds)
    assert list(found) == list(expected)
    for name, array in expected.items():
        assert found[name].dtype == array.dtype, name
        assert found[name].shape == array.shape, name
        assert found[name].tobytes() == np.ascontiguousarray(array).tobytes(), name
    return found
