"""Random nodes that move elements, on codes and floats, and integer tensors computed from shapes."""

from __future__ import annotations

import numpy as np

from .maker import Maker


def _any(m: Maker) -> str:
    return m.pick(m.choice(("u8", "u8", "f32")), lambda a: 1 <= a.ndim <= 5)


def reshape(m: Maker) -> None:
    x = _any(m)
    if not x:
        return
    shape = list(m.arrays[x].shape)
    kind = m.integer(0, 3)
    if kind == 0 and len(shape) >= 3:
        target = [0, -1, shape[-1]]
    elif kind == 1:
        target = [shape[0], -1]
    elif kind == 2 and len(shape) == 3:
        target = [shape[0], 1, shape[1], shape[2]]
    else:
        target = list(m.rng.permutation(shape))
    m.add("reshape", [x, m.known([int(v) for v in target])])


def dynamic_reshape(m: Maker) -> None:
    """[N, H, W, C] -> [N, H*W, C] with sizes taken from shapes, as exported networks do it."""
    x = m.pick(m.choice(("u8", "f32")), lambda a: a.ndim == 4)
    if not x:
        return
    batch = m.add("shape", [x], {"start": 0, "end": 1})
    last = m.add("shape", [x], {"start": 3})
    inner = m.add("shape", [x], {"start": 1, "end": 3})
    if not (batch and last and inner):
        return
    first = m.add("gather", [inner[0], m.known([0])])
    second = m.add("gather", [inner[0], m.known([-1])])
    if not (first and second):
        return
    product = m.add("binary", [first[0], second[0]], {"fn": "mul"})
    if product:
        target = m.add("concat", [batch[0], product[0], last[0]], {"axis": 0})
        if target:
            m.add("reshape", [x, target[0]])


def transpose(m: Maker) -> None:
    x = _any(m)
    if x:
        m.add("transpose", [x], {"perm": [int(v) for v in m.rng.permutation(m.arrays[x].ndim)]})


def concat(m: Maker) -> None:
    x = _any(m)
    if not x:
        return
    shape, dtype = m.arrays[x].shape, m.dtypes[x]
    axis = m.choice((len(shape) - 1, m.integer(0, len(shape) - 1)))
    rest = shape[:axis] + shape[axis + 1 :]
    others = m.values(dtype, lambda a: a.ndim == len(shape) and a.shape[:axis] + a.shape[axis + 1 :] == rest)
    names = [x] + [m.choice(others) for _ in range(m.integer(1, 3))]
    m.add("concat", names, {"axis": axis if m.chance(0.7) else axis - len(shape)})


def split(m: Maker) -> None:
    x = _any(m)
    if not x:
        return
    axis = m.integer(0, m.arrays[x].ndim - 1)
    size = m.arrays[x].shape[axis]
    if size < 2:
        return
    if m.chance(0.5):
        cut = m.integer(1, size - 1)
        m.add("split", [x, m.known([cut, size - cut])], {"axis": axis}, outputs=2)
    else:
        m.add("split", [x, ""], {"axis": axis}, outputs=m.choice((2, 3)))


def slice_(m: Maker) -> None:
    x = _any(m)
    if not x:
        return
    axis = m.integer(0, m.arrays[x].ndim - 1)
    size = m.arrays[x].shape[axis]
    step = m.choice((1, 1, 2, -1, 3, -2))
    start, end = sorted((m.integer(0, size), m.integer(0, size + 2)))
    if step < 0:
        start, end = end, start - size - 1
    if m.chance(0.5):
        m.add("slice", [x, m.known([start]), m.known([end]), m.known([axis]), m.known([step])])
    elif axis == 0 and step == 1:
        m.add("slice", [x, m.known([start]), m.known([end]), "", ""])


def gather(m: Maker) -> None:
    x = _any(m)
    if not x:
        return
    axis = m.integer(0, m.arrays[x].ndim - 1)
    size = m.arrays[x].shape[axis]
    if size:
        shape = m.choice(((), (1,), (3,), (2, 2)))
        indices = np.asarray(m.rng.integers(-size, size, shape), np.int64)
        m.add("gather", [x, m.constant("i", indices)], {"axis": axis})


def pad(m: Maker) -> None:
    x = _any(m)
    if not x:
        return
    mode = m.choice(("constant", "constant", "reflect", "edge"))
    pads = m.known([m.integer(0, 2) if m.chance(0.5) else 0 for _ in range(2 * m.arrays[x].ndim)])
    value = ""
    if mode == "constant" and m.chance(0.6):
        kind = np.uint8 if m.dtypes[x] == "u8" else np.float32
        value = m.constant("pv", np.asarray(m.zeros.get(x, 2), kind))
    m.add("pad", [x, pads, value], {"mode": mode})


def expand(m: Maker) -> None:
    x = _any(m)
    if x:
        shape = [m.integer(2, 3) if d == 1 and m.chance(0.5) else d for d in m.arrays[x].shape]
        m.add("expand", [x, m.known(shape)])


def tile(m: Maker) -> None:
    x = _any(m)
    if x:
        m.add("tile", [x, m.known([m.choice((1, 1, 2)) for _ in m.arrays[x].shape])])


def squeeze(m: Maker) -> None:
    x = m.pick(m.choice(("u8", "f32")), lambda a: a.ndim >= 2 and 1 in a.shape)
    if x:
        m.add("squeeze", [x, m.known([m.arrays[x].shape.index(1)])])


def unsqueeze(m: Maker) -> None:
    x = m.pick(m.choice(("u8", "f32")), lambda a: 1 <= a.ndim <= 3)
    if x:
        m.add("unsqueeze", [x, m.known([m.integer(0, m.arrays[x].ndim)])])


def resize(m: Maker) -> None:
    x = m.image(m.choice(("u8", "u8", "f32")))
    if not x:
        return
    h, w = m.arrays[x].shape[1:3]
    attrs = {
        "mode": m.choice(("nearest", "nearest", "linear")),
        "coord": m.choice(("half_pixel", "align_corners", "asymmetric", "pytorch_half_pixel")),
        "nearest": m.choice(("floor", "ceil", "round_prefer_floor", "round_prefer_ceil")),
    }
    if m.chance(0.5):
        sizes = m.known([max(1, int(h * m.rng.uniform(0.4, 2.5))), max(1, int(w * m.rng.uniform(0.4, 2.5)))])
        m.add("resize", [x, sizes, ""], attrs)
    else:
        scales = np.asarray([m.choice((0.5, 1.0, 2.0, 3.0, 1.5)), m.choice((2.0, 2.0, 1.0, 0.7))], np.float32)
        m.add("resize", [x, "", m.constant("sc", scales)], attrs)


def depth_space(m: Maker) -> None:
    x = m.image(m.choice(("u8", "f32")))
    if x:
        _, h, w, c = m.arrays[x].shape
        fits = [("space_to_depth", b) for b in (2, 3) if h % b == 0 and w % b == 0]
        fits += [("depth_to_space", b) for b in (2, 3) if c % (b * b) == 0]
        op, block = m.choice(fits or [("space_to_depth", 1)])
        m.add(op, [x], {"block": block, "mode": m.choice(("DCR", "CRD"))})


def identity(m: Maker) -> None:
    x = _any(m)
    if x and m.chance(0.3):
        m.add("identity", [x])


def filled(m: Maker) -> None:
    """constant_of_shape and range behind a shape."""
    x = _any(m)
    if not x or m.chance(0.6):
        return
    shape = m.add("shape", [x], {})
    if shape and m.chance(0.4):
        size = m.add("gather", [shape[0], m.known([0])])
        if size:
            places = m.add("range", [m.known([0]), size[0], m.known([m.integer(1, 2)])])
            if places:
                m.add("gather", [x, places[0]])
    elif shape:
        m.add("constant_of_shape", [shape[0]], {"value": 3.0, "dtype": m.dtypes[x]}, zero=m.zero())


MOVEMENT = [reshape, reshape, dynamic_reshape, transpose, transpose, concat, concat, concat, split, slice_, slice_]
MOVEMENT += [gather, pad, expand, tile, squeeze, unsqueeze, resize, resize, depth_space, depth_space, identity, filled]
