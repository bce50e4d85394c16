"""Reshapes as groups of dimensions: which input dimensions make which output dimensions.

[N, C, H, W] -> [N, C, H*W] has the groups {N}->{N}, {C}->{C}, {H, W}->{HW}. Dimensions of 1 belong to any group.
With groups known, a transpose in front of a reshape splits into one that moves whole groups, which passes behind
the reshape, and one inside groups.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import onnx_ir as ir

from netsuke.capture.graph import attr, constant, dims_of, ints_of, replace, source_of
from netsuke.passes.nodes import I64, ns, permuted, transposed


@dataclass(frozen=True)
class Group:
    """Axes of the input that together make these axes of the output."""

    inner: tuple[int, ...]
    outer: tuple[int, ...]


def _tokens(node: ir.Node) -> tuple[list[Any], list[Any]] | None:
    """Dimensions of input and output with unknown ones replaced by marks.

    A copied dimension has the mark of its source.
    """
    before, after = dims_of(node.inputs[0]), dims_of(node.outputs[0])
    target = ints_of(node.inputs[1])
    if before is None or (after is None and target is None):
        return None
    left = [("?", i) if d is None else d for i, d in enumerate(before)]
    size = len(target) if target is not None else len(after or ())
    right: list[Any] = list(after) if after is not None and len(after) == size else [None] * size
    copies = not int(attr(node, "allowzero", 0))
    for index in range(size):
        wanted = target[index] if target is not None else None
        if wanted == 0 and copies and index < len(left):
            right[index] = left[index]
        elif wanted is not None and wanted > 0:
            right[index] = wanted
        elif right[index] is None:
            right[index] = ("-", index)
    return left, right


def _match(left: list[Any], right: list[Any]) -> list[tuple[list[int], list[int]]]:
    """Groups from the front while they can be told; positions count from the front."""
    groups: list[tuple[list[int], list[int]]] = []
    i = j = 0
    while i < len(left) and j < len(right):
        if left[i] == right[j]:
            groups.append(([i], [j]))
            i, j = i + 1, j + 1
            continue
        if not (isinstance(left[i], int) and isinstance(right[j], int)):
            break
        found = _integer_group(left, right, i, j)
        if found is None:
            break
        end_i, end_j = found
        groups.append((list(range(i, end_i)), list(range(j, end_j))))
        i, j = end_i, end_j
    return groups


def _integer_group(left: list[Any], right: list[Any], i: int, j: int) -> tuple[int, int] | None:
    """The shortest run of integer dimensions on both sides with equal products."""
    a, b = left[i], right[j]
    i, j = i + 1, j + 1
    while a != b:
        if a < b:
            if i >= len(left) or not isinstance(left[i], int):
                return None
            a, i = a * left[i], i + 1
        else:
            if j >= len(right) or not isinstance(right[j], int):
                return None
            b, j = b * right[j], j + 1
        if a == 0 or b == 0:
            return None
    return i, j


def reshape_groups(node: ir.Node) -> list[Group] | None:
    """The groups of a reshape, in order; None when nothing can be told."""
    found = _tokens(node)
    if found is None:
        return None
    left, right = found
    front = _match(left, right)
    used_i, used_j = sum(len(g[0]) for g in front), sum(len(g[1]) for g in front)
    rest_left, rest_right = left[used_i:], right[used_j:]
    back = [
        ([len(left) - 1 - p for p in reversed(i)], [len(right) - 1 - p for p in reversed(j)])
        for i, j in reversed(_match(rest_left[::-1], rest_right[::-1]))
    ]
    stop_i = min((p for i, _ in back for p in i), default=len(left))
    stop_j = min((p for _, j in back for p in j), default=len(right))
    middle = (list(range(used_i, stop_i)), list(range(used_j, stop_j)))
    groups = [*front, *([middle] if middle[0] or middle[1] else []), *back]
    if any((not i and any(right[q] != 1 for q in j)) or (not j and any(left[p] != 1 for p in i)) for i, j in groups):
        return None
    return [Group(tuple(i), tuple(j)) for i, j in groups]


def sink_through_reshape(node: ir.Node, x: ir.Value, perm: list[int]) -> bool:
    """reshape(transpose(x, perm)) -> transpose(reshape(transpose(x, inner)), outer) when `outer` moves something."""
    groups, dims, out_dims = reshape_groups(node), dims_of(x), dims_of(node.outputs[0])
    if groups is None or dims is None:
        return False
    keys = [_first(group, perm, dims) for group in groups]
    order = sorted(range(len(groups)), key=lambda g: keys[g])
    if order == list(range(len(groups))):
        return False
    inner = [perm[i] for g in order for i in groups[g].inner]
    outer_axes = [j for g in order for j in groups[g].outer]
    outer = [outer_axes.index(j) for j in range(len(outer_axes))]
    moving = [p for p in inner if dims[p] != 1]
    shape = _target(node, groups, order, outer_axes)
    if shape is None or outer == sorted(outer):
        return False
    mid = x
    if moving != sorted(moving):
        if not all(_contiguous([perm[i] for i in g.inner if dims[perm[i]] != 1]) for g in groups):
            return False  # the part inside groups would move as much as the whole, and the part outside comes on top
        mid = transposed(node, x, inner)
    mid_dims = permuted(out_dims, outer_axes)
    y = ns(
        node,
        "reshape",
        [mid, shape],
        dtype=x.dtype,
        dims=mid_dims,
        name=node.name or "",
        source=source_of(node.outputs[0]),
    )
    source = source_of(node.outputs[0])
    new = transposed(node, y, outer, name=f"{node.name}.transpose")
    replace(node.outputs[0], new)
    new.meta["source"] = source
    assert node.graph is not None
    node.graph.remove(node, safe=True)
    return True


def _first(group: Group, perm: list[int], dims: list[Any]) -> tuple[int, int]:
    """Where the group lies in x: its first dimension that is not 1."""
    real = [perm[i] for i in group.inner if dims[perm[i]] != 1]
    anywhere = [perm[i] for i in group.inner]
    return (min(real), 0) if real else (min(anywhere, default=0), 1)


def _contiguous(positions: list[int]) -> bool:
    return not positions or max(positions) - min(positions) + 1 == len(positions)


def _target(node: ir.Node, groups: list[Group], order: list[int], axes: list[int]) -> ir.Value | None:
    """The target shape with its entries in the new order, as a constant or picked from a computed one."""
    assert node.graph is not None
    given = ints_of(node.inputs[1])
    if given is None:
        picked = constant(node.graph, np.asarray(axes, np.int64), f"{node.name}.order")
        return ns(node, "gather", [node.inputs[1], picked], {"axis": 0}, dtype=I64, dims=[len(axes)])
    dims = dims_of(node.outputs[0]) or [None] * len(given)
    # position of each input dimension in the tensor that the new reshape reads
    place = {i: k for k, i in enumerate(i for g in order for i in groups[g].inner)}
    copies = not int(attr(node, "allowzero", 0))
    target: list[int] = []
    for position, axis in enumerate(axes):
        value = given[axis]
        if value == 0 and copies:
            value = dims[axis] if isinstance(dims[axis], int) else 0 if place.get(axis) == position else -1
        elif value == -1 and isinstance(dims[axis], int):
            value = dims[axis]
        target.append(int(value))
    if target.count(-1) > 1:
        return None
    return constant(node.graph, np.asarray(target, np.int64), f"{node.name}.shape")
