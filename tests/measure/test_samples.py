"""The Frechet distance against its definition, and the classifier's reading of real digits."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.linalg import sqrtm

from netsuke.core.errors import UsageError
from netsuke.data import load_data
from netsuke.measure.samples import digit_quality, fashion_reader, features, frechet_distance, sample_quality

pytest.importorskip("torch")
RNG = np.random.default_rng(3)


def test_the_distance_is_the_one_of_the_definition() -> None:
    mix = RNG.normal(size=(6, 6))
    x, y = RNG.normal(size=(400, 6)) @ mix, 0.5 * RNG.normal(size=(300, 6)) + 1.0
    ca, cb = np.cov(x, rowvar=False), np.cov(y, rowvar=False)
    wanted = ((x.mean(0) - y.mean(0)) ** 2).sum() + np.trace(ca + cb - 2 * sqrtm(ca @ cb).real)
    assert frechet_distance(x, y) == pytest.approx(wanted, rel=1e-9)
    assert frechet_distance(x, y) == pytest.approx(frechet_distance(y, x), rel=1e-9)
    assert frechet_distance(x, x) == pytest.approx(0.0, abs=1e-9)


def test_of_two_normal_distributions_on_a_line_it_is_known() -> None:
    x = RNG.normal(size=(20000, 1)) * 2 + 3
    y = RNG.normal(size=(20000, 1)) - 1
    assert frechet_distance(x, y) == pytest.approx(16 + 1, rel=0.05)


def test_real_digits_are_near_and_read_and_noise_is_neither() -> None:
    x, y = next(load_data("digits:test").batches(359))
    assert y is not None
    real = digit_quality(2 * x - 1, y)
    noise = digit_quality(RNG.normal(size=x.shape).astype(np.float32), y)
    assert real.accuracy > 0.97
    assert real.distance < 1.0
    assert noise.accuracy < 0.3
    assert noise.distance > 20 * real.distance


def test_a_reader_of_28x28_images_gives_what_its_last_layer_reads() -> None:
    import torch

    from netsuke.models import build

    network = build("fashion_cnn")
    reader, x = fashion_reader(network), RNG.uniform(-1, 1, (300, 1, 28, 28)).astype(np.float32)
    found, read = features(x, reader)
    with torch.no_grad():
        logits = network((torch.from_numpy(x) * 0.5 + 0.5 - 0.286) / 0.353)
    assert found.shape == (300, 128)
    assert np.array_equal(read, logits.argmax(1).numpy())
    same = sample_quality(x, read, found, reader)
    assert (same.accuracy, same.distance) == (1.0, pytest.approx(0.0, abs=1e-4))
    assert sample_quality(np.clip(x + 0.5, -1, 1), read, found, reader).distance > 100 * same.distance
    with pytest.raises(UsageError, match=r"\[N, 1, 28, 28\]"):
        features(np.zeros((4, 1, 8, 8)), reader)


def test_what_cannot_be_measured_is_refused() -> None:
    with pytest.raises(UsageError, match=r"too few samples[\s\S]*different widths"):
        frechet_distance(RNG.normal(size=(5, 8)), RNG.normal(size=(50, 4)))
    with pytest.raises(UsageError, match="another shape"):
        digit_quality(np.zeros((4, 1, 28, 28)), np.zeros(4))
