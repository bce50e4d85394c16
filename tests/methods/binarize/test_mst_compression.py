"""Spanning trees of binary filters: the tree itself, what it saves, the loss, and the kernel that follows it."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.sparse.csgraph import minimum_spanning_tree
from torch import nn

from netsuke import engine
from netsuke.capture import capture
from netsuke.core.errors import UsageError
from netsuke.measure import tuning
from netsuke.methods.binarize import mst_compression
from netsuke.nn.binary_layers import freeze
from netsuke.passes import compile_program


@settings(deadline=None, max_examples=30)
@given(st.integers(2, 24), st.integers(5, 90), st.integers(0, 1000))
def test_the_tree_is_a_minimum_spanning_tree(count, positions, seed):
    signs = np.random.default_rng(seed).random((count, positions)) < 0.5
    tree = mst_compression.spanning_tree(signs)
    weights = mst_compression.distances(signs)
    assert (weights == (signs[:, None] != signs[None]).sum(2)).all()
    want = minimum_spanning_tree(weights + 1).sum() - (count - 1)  # scipy takes 0 as no edge
    assert tree.distances.sum() == want
    assert sorted(tree.order) == list(range(count))
    place = {channel: i for i, channel in enumerate(tree.order)}
    assert all(place[p] < place[c] for c, p in enumerate(tree.parents) if p >= 0)
    patches = np.random.default_rng(seed + 1).random((4, positions)) < 0.5
    sums, used = mst_compression.counted(signs, patches)
    assert (sums == (2 * patches.astype(int) - 1) @ (2 * signs.astype(int) - 1).T).all()
    assert used == round(tree.share * signs.size)


def test_unrelated_filters_seem_to_save_half():
    share = mst_compression.spanning_tree(np.random.default_rng(0).random((64, 576)) < 0.5).share
    assert 0.45 < share < 0.48  # the card's 0.463


def network(seed):
    torch.manual_seed(seed)
    model = nn.Sequential(
        nn.Conv2d(1, 20, 3, padding=1),
        nn.BatchNorm2d(20),
        nn.Conv2d(20, 70, 3, padding=1, bias=False),
        nn.BatchNorm2d(70),
        nn.Conv2d(70, 12, 3, padding=1, stride=2, bias=False),
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
        nn.Linear(12, 3),
    )
    return mst_compression.apply(model, mst_compression.Config())


def test_the_loss_shrinks_the_tree():
    model = network(0)
    penalty = mst_compression.Penalty(model, mst_compression.Config(every=3))
    first = float(penalty().detach())
    trees = [t.share for t in penalty.trees]
    assert first == pytest.approx(sum(trees), rel=1e-5)
    optimizer = torch.optim.Adam(model.parameters(), lr=0.02)
    for _ in range(12):
        optimizer.zero_grad()
        penalty().backward()
        optimizer.step()
    assert float(penalty().detach()) < 0.9 * first


def test_bad_options_are_refused():
    with pytest.raises(UsageError):
        mst_compression.Penalty(network(0), mst_compression.Config(every=0))
    with pytest.raises(UsageError):
        mst_compression.spanning_tree(np.zeros(3, bool))


def test_the_tree_ordered_kernel_gives_the_same_outputs():
    model = freeze(network(1))
    program = compile_program(capture(model, shape=(1, 1, 9, 9)))
    x = np.random.default_rng(0).standard_normal((3, 1, 9, 9)).astype(np.float32)
    found, kernels = [], []
    for way in ("tiles", "tree"):
        tuning.use({"*": way})
        try:
            for threads in (1, 2):
                loaded = engine.load(program, threads=threads)
                found.append(next(iter(loaded.run({program.inputs[0].name: x}).values())).tobytes())
            kernels.append([row["kernel"] for row in loaded.kernels() if row["op"] == "bconv"])
        finally:
            tuning.use({})
    assert len(set(found)) == 1
    assert not any(k.endswith("_tree") for k in kernels[0])
    assert all(k.endswith("_tree") for k in kernels[1])
    rows = mst_compression.report(program)
    assert [row.filters for row in rows] == [70, 12]
    assert all(row.plain_bits == row.filters * row.positions and 0 < row.share <= 1 for row in rows)
