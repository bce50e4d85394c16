"""Movement operators: the engine and the reference interpreter give the same bytes on every element size."""

from __future__ import annotations

from math import prod
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.engine.helpers import DTYPES, array_of, free, one_node, same_as_interpreter

from netsuke.core.errors import NetsukeError
from netsuke.engine import load

SIZED = st.sampled_from(["f32", "u8", "i64", "bool"])
QUICK = settings(max_examples=60, deadline=None)
i64 = np.int64


def shapes(low: int = 0, high: int = 5, size: int = 6, least: int = 0) -> st.SearchStrategy[tuple[int, ...]]:
    return st.lists(st.integers(least, size), min_size=low, max_size=high).map(tuple)


def check(op: str, x: Any, rank: int, known: dict[str, Any] | None = None, outputs: int = 1, **attrs: Any) -> None:
    known = {name: np.asarray(value, i64) for name, value in (known or {}).items()}
    dtype = next(key for key, value in DTYPES.items() if np.dtype(value) == x.dtype)
    ports = [(f"y{i}", dtype, free(rank)) for i in range(outputs)]
    program = one_node(op, {"x": x}, ["x", *known], known, ports, **attrs)
    same_as_interpreter(program, {"x": x})


@given(SIZED, shapes(1), st.randoms(use_true_random=False))
@QUICK
def test_transpose(dtype: str, shape: tuple[int, ...], random: Any) -> None:
    perm = list(range(len(shape)))
    random.shuffle(perm)
    check("transpose", array_of(dtype, shape), len(shape), perm=perm)


@pytest.mark.parametrize("dtype", ["f32", "u8", "i64"])
@pytest.mark.parametrize("channels", [1, 2, 3, 4, 5, 16, 31, 67])
@pytest.mark.parametrize("pixels", [1, 5, 15, 64, 65, 200, 500])
def test_transpose_between_nchw_and_nhwc(dtype: str, channels: int, pixels: int) -> None:
    check("transpose", array_of(dtype, (2, channels, pixels, 3)), 4, perm=[0, 2, 3, 1])
    check("transpose", array_of(dtype, (2, pixels, 3, channels)), 4, perm=[0, 3, 1, 2])


@given(SIZED, shapes(1), st.data())
@QUICK
def test_slice(dtype: str, shape: tuple[int, ...], data: Any) -> None:
    axes = data.draw(st.lists(st.integers(0, len(shape) - 1), unique=True, max_size=len(shape)))
    near = st.one_of(st.integers(-8, 8), st.sampled_from([2**62, -(2**62), 2**63 - 1, -(2**63)]))
    numbers = {name: [data.draw(near) for _ in axes] for name in ("starts", "ends")}
    steps = [data.draw(st.sampled_from([1, 2, 3, -1, -2, 100, -(2**63) + 1])) for _ in axes]
    check("slice", array_of(dtype, shape), len(shape), {**numbers, "axes": axes, "steps": steps})


def test_slice_without_axes_and_steps() -> None:
    known = {"starts": np.array([1, -4], i64), "ends": np.array([4, 100], i64)}
    x = array_of("f32", (5, 6, 7))
    program = one_node("slice", {"x": x}, ["x", "starts", "ends", "", ""], known, [("y", "f32", free(3))])
    same_as_interpreter(program, {"x": x})


@given(SIZED, shapes(1, 4, 4), st.data())
@QUICK
def test_tile(dtype: str, shape: tuple[int, ...], data: Any) -> None:
    repeats = [data.draw(st.integers(0, 3)) for _ in shape]
    check("tile", array_of(dtype, shape), len(shape), {"repeats": repeats})


@given(SIZED, shapes(1, 4, 4, 1), st.data())
@QUICK
def test_expand(dtype: str, shape: tuple[int, ...], data: Any) -> None:
    wanted = [data.draw(st.sampled_from([1, size] if size > 1 else [1, 0, 3])) for size in shape]
    wanted = [data.draw(st.integers(1, 3)) for _ in range(data.draw(st.integers(0, 2)))] + wanted
    wanted = wanted[data.draw(st.integers(0, len(wanted))) :]
    check("expand", array_of(dtype, shape), max(len(shape), len(wanted)), {"shape": wanted})


@given(SIZED, shapes(1, 4, 5), st.data())
@QUICK
def test_concat(dtype: str, shape: tuple[int, ...], data: Any) -> None:
    axis = data.draw(st.integers(-len(shape), len(shape) - 1))
    feeds = {}
    for i in range(data.draw(st.integers(1, 4))):
        dims = list(shape)
        dims[axis] = data.draw(st.integers(0, 5))
        feeds[f"x{i}"] = array_of(dtype, tuple(dims), seed=i)
    program = one_node("concat", feeds, list(feeds), {}, [("y", dtype, free(len(shape)))], axis=axis)
    same_as_interpreter(program, feeds)


@pytest.mark.parametrize("axis", [0, 1, 2])
def test_concat_and_split_of_large_tensors(axis: int) -> None:
    feeds = {name: array_of("u8", (60, 70, 80), seed) for seed, name in enumerate("ab")}
    same_as_interpreter(one_node("concat", feeds, ["a", "b"], {}, [("y", "u8", free(3))], axis=axis), feeds, threads=2)
    check("split", array_of("f32", (60, 70, 80)), 3, {"sizes": [10, [60, 70, 80][axis] - 10]}, outputs=2, axis=axis)


@given(SIZED, shapes(1, 4, 7), st.integers(1, 4), st.data())
@QUICK
def test_split(dtype: str, shape: tuple[int, ...], parts: int, data: Any) -> None:
    axis = data.draw(st.integers(-len(shape), len(shape) - 1))
    size = shape[axis]
    cuts = sorted(data.draw(st.integers(0, size)) for _ in range(parts - 1))
    sizes = [b - a for a, b in zip([0, *cuts], [*cuts, size], strict=True)]
    check("split", array_of(dtype, shape), len(shape), {"sizes": sizes}, parts, axis=axis)


def test_split_into_equal_parts() -> None:
    x = array_of("f32", (2, 7))
    program = one_node("split", {"x": x}, ["x", ""], {}, [(f"y{i}", "f32", free(2)) for i in range(3)], axis=1)
    assert [y.shape[1] for y in same_as_interpreter(program, {"x": x}).values()] == [3, 3, 1]


@given(SIZED, shapes(1, 4, 5, 1), shapes(0, 2, 4), st.data())
@QUICK
def test_gather(dtype: str, shape: tuple[int, ...], index_shape: tuple[int, ...], data: Any) -> None:
    axis = data.draw(st.integers(-len(shape), len(shape) - 1))
    numbers = st.integers(-shape[axis], shape[axis] - 1)
    count = prod(index_shape)
    indices = np.array(data.draw(st.lists(numbers, min_size=count, max_size=count)), i64).reshape(index_shape)
    feeds = {"x": array_of(dtype, shape), "i": indices}
    rank = len(shape) - 1 + len(index_shape)
    same_as_interpreter(one_node("gather", feeds, ["x", "i"], {}, [("y", dtype, free(rank))], axis=axis), feeds)


def test_gather_refuses_an_index_outside() -> None:
    feeds = {"x": array_of("f32", (3, 2)), "i": np.array([0, 3], i64)}
    engine = load(one_node("gather", feeds, ["x", "i"], {}, [("y", "f32", free(2))], axis=0))
    with pytest.raises(NetsukeError, match="index 3 is outside of a dimension of 3"):
        engine.run(feeds)
    assert engine.run({"x": feeds["x"], "i": np.array([2, -3], i64)})["y"].shape == (2, 2)


@given(SIZED, shapes(1, 4, 5, 1), st.sampled_from(["constant", "reflect", "edge"]), st.booleans(), st.data())
@QUICK
def test_pad(dtype: str, shape: tuple[int, ...], mode: str, valued: bool, data: Any) -> None:
    longest = {"constant": lambda _: 4, "reflect": lambda n: max(n - 1, 0), "edge": lambda _: 4}[mode]
    pads = [data.draw(st.integers(0, longest(n))) for n in shape * 2]
    x = array_of(dtype, shape)
    constants = {"p": np.array(pads, i64), "v": array_of(dtype, (), 5)}
    inputs = ["x", "p", "v" if valued else ""]
    used = {name: constants[name] for name in inputs[1:] if name}
    same_as_interpreter(one_node("pad", {"x": x}, inputs, used, [("y", dtype, free(len(shape)))], mode=mode), {"x": x})


@pytest.mark.parametrize("mode", ["DCR", "CRD"])
@pytest.mark.parametrize("dtype", ["f32", "u8"])
@pytest.mark.parametrize(("block", "channels"), [(1, 3), (2, 1), (2, 5), (3, 2), (2, 32)])
def test_space_and_depth(mode: str, dtype: str, block: int, channels: int) -> None:
    deep = array_of(dtype, (2, 3, 5, channels * block * block))
    check("depth_to_space", deep, 4, block=block, mode=mode)
    check("space_to_depth", array_of(dtype, (2, 3 * block, 4 * block, channels)), 4, block=block, mode=mode)


@given(shapes(0, 4, 5))
@QUICK
def test_views(shape: tuple[int, ...]) -> None:
    x = array_of("f32", shape)
    check("reshape", x, 1, {"shape": [x.size]}, allowzero=1)
    check("identity", x, len(shape))
    check("unsqueeze", x, len(shape) + 2, {"axes": [0, -1]})
    check("squeeze", x[np.newaxis], len(shape), {"axes": [0]})
    if x.size:
        check("reshape", x, 2, {"shape": [1, -1]})


def test_reshape_copies_dimensions() -> None:
    check("reshape", array_of("u8", (4, 6, 2)), 2, {"shape": [0, -1]})
    check("reshape", array_of("u8", (0, 6)), 2, {"shape": [6, 0]}, allowzero=1)


@pytest.mark.parametrize("slots", [{}, {"start": 1}, {"start": -2}, {"end": 2}, {"start": 1, "end": -1}])
def test_shape(slots: dict[str, int]) -> None:
    x = array_of("u8", (2, 3, 4, 5))
    same_as_interpreter(one_node("shape", {"x": x}, ["x"], {}, [("y", "i64", free(1))], **slots), {"x": x})


@pytest.mark.parametrize("numbers", [(0, 5, 1), (5, 0, -2), (3, 3, 1), (1, 10, 4), (0, 5, -1), (-7, 2, 3)])
def test_range(numbers: tuple[int, int, int]) -> None:
    x = array_of("f32", (1,))
    known = {name: np.array(value, i64) for name, value in zip("abc", numbers, strict=True)}
    same_as_interpreter(one_node("range", {"x": x}, ["a", "b", "c"], known, [("y", "i64", free(1))]), {"x": x})


# A bool is 0 or 1; the verifier refuses the rest.
@pytest.mark.parametrize(
    ("dtype", "value"), [(d, v) for d in DTYPES for v in (0.0, 3.0, 1.0) if (d, v) != ("bool", 3.0)]
)
def test_constant_of_shape(dtype: str, value: float) -> None:
    x = array_of("f32", (1,))
    known = {"s": np.array([2, 3], i64)}
    program = one_node("constant_of_shape", {"x": x}, ["s"], known, [("y", dtype, free(2))], value=value, dtype=dtype)
    same_as_interpreter(program, {"x": x})
