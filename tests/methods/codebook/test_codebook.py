"""Codebooks: packing, assignment and update against plain loops; JLCM against k-means."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from methods.quantize.graphs import data, resnet
from methods.quantize.whole import compress, db, run
from netsuke.core.errors import UsageError
from netsuke.methods.codebook._codebook import Codebook, kmeans, nearest
from netsuke.methods.codebook._start import grouped
from netsuke.methods.codebook.jlcm import codebook
from netsuke.methods.quantize._variables import CodebookIndex

torch.set_num_threads(1)


def vectors(n=200, d=3, seed=0):
    return np.random.default_rng(seed).standard_normal((n, d))


@given(st.integers(2, 256), st.integers(1, 90), st.integers(0, 99))
def test_packing_returns_the_same_book_and_takes_the_bytes_it_says(k, n, seed):
    rng = np.random.default_rng(seed)
    book = Codebook(rng.standard_normal((k, 2)).astype(np.float32), rng.integers(0, k, n).astype(np.uint8))
    data = book.packed()
    assert data.nbytes + book.entries.nbytes == book.stored_bytes()
    assert 2**book.bits >= k > 2 ** (book.bits - 1) or k == 2
    back = Codebook.unpacked(book.entries, data, n)
    np.testing.assert_array_equal(back.decode(), book.decode())


def test_an_index_behind_the_book_is_refused():
    book = Codebook(np.zeros((4, 1), np.float32), np.array([3, 1], np.uint8))
    with pytest.raises(UsageError, match="behind the codebook"):
        Codebook.unpacked(book.entries[:3], book.packed(), 2)


def test_assignment_and_update_are_the_plain_ones():
    x, entries = vectors(), vectors(7, seed=1)
    index = nearest(x, entries, block=16)
    want = [int(np.argmin([((row - e) ** 2).sum() for e in entries])) for row in x]
    np.testing.assert_array_equal(index, want)
    weights = np.random.default_rng(2).random(len(x))
    book = Codebook(entries.astype(np.float32), index).updated(x, weights)
    for i in range(7):
        members = index == i
        mean = np.average(x[members], axis=0, weights=weights[members]) if members.any() else entries[i]
        np.testing.assert_allclose(book.entries[i], mean, rtol=1e-5)


def test_kmeans_never_gets_worse_with_rounds_and_beats_a_uniform_grid():
    x = vectors(500, 1)
    errors = [kmeans(x, 8, np.random.default_rng(0), rounds).error(x) for rounds in (1, 3, 10, 50)]
    assert errors == sorted(errors, reverse=True)
    step = (x.max() - x.min()) / 7
    uniform = x.min() + step * np.rint((x - x.min()) / step)
    assert errors[-1] < 0.8 * ((uniform - x) ** 2).sum()
    assert np.all(np.diff(kmeans(x, 8, np.random.default_rng(0)).entries[:, 0]) >= 0)


def test_few_vectors_and_equal_vectors_are_fine_and_bad_ones_are_refused():
    assert kmeans(np.ones((5, 1)), 4, np.random.default_rng(0)).error(np.ones((5, 1))) == 0
    with pytest.raises(UsageError) as caught:
        kmeans(np.full((3, 1), np.nan), 1, np.random.default_rng(0))
    assert len(caught.value.problems) == 2


def test_a_position_moves_along_the_gap_of_its_neighbours():
    codes = np.array([[-4, 0, 1], [5, 0, 5]], np.int8)
    index = CodebookIndex(codes.astype(np.float32), np.ones(2, np.float32), 0, 2, codes)
    np.testing.assert_array_equal(index.codes(), codes)
    w = index.weight()
    np.testing.assert_array_equal(w.detach().numpy(), codes)
    w.sum().backward()
    np.testing.assert_allclose(index.values.grad.numpy(), [[2.0, 2.5, 2.5], [2.0, 2.5, 2.0]])  # gaps of -4, 0, 1, 5
    np.testing.assert_array_equal(index.entries.grad.numpy(), [1, 2, 1, 2])  # members
    with torch.no_grad():
        index.entries[0] = 3.0
    index.project()
    assert index.entries.tolist() == [0, 1, 3, 5]


def codes_of(model):
    return [n.inputs[0].const_value.numpy() for n in model.graph if n.name.endswith("/weight")]


def test_learned_books_beat_kmeans_and_kmeans_beats_the_uniform_grid():
    model, calib = resnet(), data(64)
    base, exact = "quantize/uniform:weight_bits=2,ends=0", run(model, calib)
    quality, made = {}, {}
    for name, steps in {"uniform": [], "kmeans": ["codebook/jlcm:iterations=0"], "jlcm": ["codebook/jlcm"]}.items():
        made[name], plan = compress(model, [base, *steps], calib)
        quality[name] = db(exact, run(made[name], calib))
    assert quality["jlcm"] > quality["kmeans"] + 1, quality
    assert quality["kmeans"] > quality["uniform"], quality
    assert all(len(np.unique(c)) <= 4 for c in codes_of(made["jlcm"]))
    row = plan["stem"].rows[0]
    assert (row.status, "decoded at load" in row.reason) == ("packed", True)
    assert row.bytes_after < codes_of(made["jlcm"])[0].size / 2
    assert any("bytes as indices" in note for note in plan.notes)
    book = codebook(codes_of(made["jlcm"])[0])
    np.testing.assert_array_equal(book.decode().reshape(codes_of(made["jlcm"])[0].shape), codes_of(made["jlcm"])[0])


def test_layers_of_eight_bits_are_left_alone_and_one_scale_per_layer_is_refused():
    model, calib = resnet(), data(32)
    plain = codes_of(compress(model, ["quantize/uniform:weight_bits=3"], calib)[0])
    steps = ["quantize/uniform:weight_bits=3", "codebook/jlcm:iterations=0"]
    made = codes_of(compress(model, steps, calib)[0])
    np.testing.assert_array_equal(plain[0], made[0])
    assert not np.array_equal(plain[1], made[1])
    with pytest.raises(UsageError, match="one scale per channel"):
        compress(model, ["quantize/uniform:weight_bits=3,granularity=tensor", "codebook/jlcm"], calib)


def test_grouped_channels_share_scales_of_similar_size():
    scales = np.array([1.0, 1.1, 0.9, 8.0, 9.0, 0.1], np.float32)
    made = grouped(scales, 3, np.random.default_rng(0))
    np.testing.assert_array_equal(made, np.array([1.1, 1.1, 1.1, 9.0, 9.0, 0.1], np.float32))
    np.testing.assert_array_equal(grouped(scales, 6, np.random.default_rng(0)), scales)
    model, calib = resnet(), data(32)
    steps = ["quantize/uniform:weight_bits=3,ends=0", "codebook/jlcm:iterations=0,groups=2"]
    made, _ = compress(model, steps, calib)
    found = [n.inputs[1].const_value.numpy() for n in made.graph if n.name.endswith("/weight")]
    assert all(len(np.unique(s)) <= 2 for s in found)
    with pytest.raises(UsageError, match="groups"):
        compress(model, ["quantize/uniform:weight_bits=3", "codebook/jlcm:groups=1"], calib)


def test_tables_are_a_switch_of_gradient_ptq_and_fitted_ones_beat_kmeans():
    model, calib = resnet(), data(64)
    base, exact = "quantize/uniform:weight_bits=2", run(model, calib)
    quality = {}
    for step in ("codebook/jlcm:iterations=0", "quantize/gradient_ptq:grid=codebook,iterations=60"):
        made, _ = compress(model, [base, step], calib)
        quality[step] = db(exact, run(made, calib))
        assert all(len(np.unique(c)) <= 4 for c in codes_of(made)[1:-1])
    kmeans_only, fitted = quality.values()
    assert fitted > kmeans_only + 3, quality
    with pytest.raises(UsageError, match="grid"):
        compress(model, [base, "quantize/gradient_ptq:grid=log"], calib)
