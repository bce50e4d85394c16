"""Operators that move elements. Sizes and axes come from known i64 tensors."""

from __future__ import annotations

import math

import numpy as np
import torch
import torch.nn.functional as functional
from torch import Tensor

from netsuke.program.emulation.call import Call, rule
from netsuke.program.reference.resize import coordinates, linear_weights, nearest_indices


@rule("reshape")
def _reshape(call: Call) -> list[Tensor]:
    x, shape = call.tensor(0), call.ints_of(1)
    if not call.integer("allowzero"):
        shape = [x.shape[i] if d == 0 else d for i, d in enumerate(shape)]
    return [x.reshape(shape)]


@rule("transpose")
def _transpose(call: Call) -> list[Tensor]:
    return [call.tensor(0).permute(call.ints("perm"))]


@rule("concat")
def _concat(call: Call) -> list[Tensor]:
    return [torch.cat([call.tensor(i) for i in range(len(call.inputs))], dim=call.integer("axis"))]


@rule("split")
def _split(call: Call) -> list[Tensor]:
    x, parts, axis = call.tensor(0), len(call.node.outputs), call.integer("axis")
    if call.inputs[1] is not None:
        return list(torch.split(x, call.ints_of(1), dim=axis))
    part = math.ceil(x.shape[axis] / parts)
    return list(torch.split(x, [part] * (parts - 1) + [x.shape[axis] - part * (parts - 1)], dim=axis))


@rule("slice")
def _slice(call: Call) -> list[Tensor]:
    x, starts, ends = call.tensor(0), call.ints_of(1), call.ints_of(2)
    axes = list(range(len(starts))) if call.inputs[3] is None else call.ints_of(3)
    steps = [1] * len(starts) if call.inputs[4] is None else call.ints_of(4)
    for start, end, axis, step in zip(starts, ends, axes, steps, strict=True):
        size = x.shape[axis]
        first, last = (v + size if v < 0 else v for v in (start, end))
        first = min(max(first, 0), size if step > 0 else size - 1)
        last = min(max(last, -1 if step < 0 else 0), size)
        x = x.index_select(axis, torch.arange(size, device=x.device)[_places(first, last, step)])
    return [x]


def _places(first: int, last: int, step: int) -> list[int]:
    return list(range(first, last, step))


@rule("gather")
def _gather(call: Call) -> list[Tensor]:
    x, indices, axis = call.tensor(0), call.tensor(1), call.integer("axis")
    flat = indices.reshape(-1)
    flat = torch.where(flat < 0, flat + x.shape[axis], flat)
    axis %= x.ndim
    return [x.index_select(axis, flat).reshape(*x.shape[:axis], *indices.shape, *x.shape[axis + 1 :])]


@rule("pad")
def _pad(call: Call) -> list[Tensor]:
    x, pads, mode = call.tensor(0), call.ints_of(1), call.word("mode")
    rank = x.ndim
    if mode == "constant":
        widths = [v for axis in reversed(range(rank)) for v in (pads[axis], pads[axis + rank])]
        value = 0 if call.inputs[2] is None else call.tensor(2).reshape(-1)[0].item()
        return [functional.pad(x, widths, value=value)]
    for axis in range(rank):
        size = x.shape[axis]
        places = torch.arange(-pads[axis], size + pads[axis + rank], device=x.device)
        if mode == "reflect":
            places = torch.where(places < 0, -places, places)
            places = torch.where(places >= size, 2 * (size - 1) - places, places)
        x = x.index_select(axis, places.clamp(0, size - 1))
    return [x]


@rule("expand")
def _expand(call: Call) -> list[Tensor]:
    x, shape = call.tensor(0), call.ints_of(1)
    return [x.expand(np.broadcast_shapes(tuple(x.shape), tuple(shape)))]


@rule("tile")
def _tile(call: Call) -> list[Tensor]:
    return [call.tensor(0).repeat(call.ints_of(1))]


@rule("squeeze")
def _squeeze(call: Call) -> list[Tensor]:
    return [call.tensor(0).squeeze(tuple(call.ints_of(1)))]


@rule("unsqueeze")
def _unsqueeze(call: Call) -> list[Tensor]:
    x, axes = call.tensor(0), call.ints_of(1)
    for axis in sorted(a % (x.ndim + len(axes)) for a in axes):
        x = x.unsqueeze(axis)
    return [x]


@rule("depth_to_space")
def _depth_to_space(call: Call) -> list[Tensor]:
    x, b = call.tensor(0).permute(0, 3, 1, 2), call.integer("block")
    if call.word("mode") == "DCR":  # torch's pixel_shuffle is CRD; reorder channels first
        n, c, h, w = x.shape
        x = x.reshape(n, b * b, c // (b * b), h, w).transpose(1, 2).reshape(n, c, h, w)
    return [functional.pixel_shuffle(x, b).permute(0, 2, 3, 1)]


@rule("space_to_depth")
def _space_to_depth(call: Call) -> list[Tensor]:
    b = call.integer("block")
    y = functional.pixel_unshuffle(call.tensor(0).permute(0, 3, 1, 2), b)
    if call.word("mode") == "DCR":
        n, c, h, w = y.shape
        y = y.reshape(n, c // (b * b), b * b, h, w).transpose(1, 2).reshape(n, c, h, w)
    return [y.permute(0, 2, 3, 1)]


@rule("shape")
def _shape(call: Call) -> list[Tensor]:
    shape = list(call.tensor(0).shape)
    end = call.integer("end") if "end" in call.attrs else len(shape)
    return [torch.tensor(shape[call.integer("start") : end], dtype=torch.int64)]


@rule("range")
def _range(call: Call) -> list[Tensor]:
    start, limit, delta = (call.ints_of(i)[0] for i in range(3))
    return [torch.tensor(list(range(start, limit, delta)), dtype=torch.int64)]


@rule("constant_of_shape")
def _constant_of_shape(call: Call) -> list[Tensor]:
    kinds = {"f32": torch.float32, "u8": torch.float32, "s8": torch.int8, "i32": torch.int32, "i64": torch.int64}
    kinds["bool"] = torch.bool
    word, value = call.word("dtype"), call.number("value")
    return [torch.full(call.ints_of(0), value if word == "f32" else int(value), dtype=kinds[word])]


@rule("identity")
def _identity(call: Call) -> list[Tensor]:
    return [call.tensor(0)]


@rule("resize")
def _resize(call: Call) -> list[Tensor]:
    x = call.tensor(0)
    places = []
    for axis in (0, 1):
        size = x.shape[1 + axis]
        if call.inputs[1] is not None:
            out = call.ints_of(1)[axis]
            scale = out / size
        else:
            scale = float(call.tensor(2).reshape(-1)[axis])
            out = math.floor(size * scale)
        places.append((size, coordinates(size, out, scale, call.word("coord"))))
    if call.word("mode") == "nearest":
        for axis, (size, p) in enumerate(places):
            x = x.index_select(1 + axis, torch.from_numpy(nearest_indices(p, call.word("nearest"), size)).to(x.device))
        return [x]
    for axis, (size, p) in reversed(list(enumerate(places))):
        low, high, weight = (torch.from_numpy(v).to(x.device) for v in linear_weights(p, size))
        a, b = x.index_select(1 + axis, low), x.index_select(1 + axis, high)
        x = a + weight.reshape([1, -1, 1, 1] if axis == 0 else [1, 1, -1, 1]) * (b - a)
    return [torch.round(x) if call.dtypes[0] == "u8" else x]
