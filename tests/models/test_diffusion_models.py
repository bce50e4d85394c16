"""The diffusion networks: captured with three inputs, compiled, compressed, and what they generate."""

from __future__ import annotations

import gzip
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from netsuke import engine, models
from netsuke.capture import capture
from netsuke.core.errors import UsageError
from netsuke.nn.diffusion import sample, starts
from netsuke.passes import compile_program

torch = pytest.importorskip("torch")

NETWORKS = ("digits_unet", "digits_prompt_unet", "digits_dit")


def arrays(count: int, seed: int = 0) -> dict[str, Any]:
    rng = np.random.default_rng(seed)
    return {
        "image": rng.standard_normal((count, 1, 8, 8)).astype(np.float32),
        "time": rng.uniform(0, 1000, count).astype(np.float32),
        "label": rng.integers(0, 10, count),
    }


@pytest.mark.parametrize("name", NETWORKS)
def test_the_engine_computes_what_torch_does(name: str) -> None:
    network, given = models.build(name), arrays(5)
    with torch.no_grad():
        wanted = network(*(torch.from_numpy(a) for a in given.values())).numpy()
    item = models.entry(name)
    run = engine.load(compile_program(capture(network, shape=item.shapes, dtype=item.dtypes)))
    found = np.asarray(next(iter(run.run(given).values())))
    np.testing.assert_allclose(found, wanted, atol=2e-4)
    assert sum(p.numel() for p in network.parameters()) < 500_000


@pytest.mark.parametrize("name", NETWORKS)
def test_samples_are_digits(name: str) -> None:
    from netsuke.measure.samples import digit_quality

    network = models.build(name)
    noise, classes = starts(200, (1, 8, 8))
    with torch.no_grad():
        images = sample(network, torch.from_numpy(noise), torch.from_numpy(classes), 10).numpy()
    found = digit_quality(images, classes)
    assert found.accuracy > 0.9
    assert found.distance < 1.0


@pytest.mark.parametrize("name", ["fashion_unet", "fashion_dit"])
def test_28x28_networks_are_served_and_small_enough(name: str) -> None:
    network, item = models.build(name), models.entry(name)
    given = {**arrays(3), "image": np.random.default_rng(0).standard_normal((3, 1, 28, 28)).astype(np.float32)}
    with torch.no_grad():
        wanted = network(*(torch.from_numpy(a) for a in given.values())).numpy()
    assert wanted.shape == (3, 1, 28, 28)
    run = engine.load(compile_program(capture(network, shape=item.shapes, dtype=item.dtypes)))
    np.testing.assert_allclose(np.asarray(next(iter(run.run(given).values()))), wanted, atol=5e-4)
    assert sum(p.numel() for p in network.parameters()) < 1_000_000


def test_sizes_are_parameters_and_training_learns_made_up_images() -> None:
    """Bright squares whose corner is the class: a few steps take a third off the error of predicting nothing."""
    from netsuke.models.diffusion_unet import DiffusionUNet
    from netsuke.models.dit import DiT
    from netsuke.models.train_diffusion import fit
    from netsuke.nn.diffusion import noisy

    y = torch.arange(64) % 4
    x = torch.full((64, 1, 12, 12), -1.0)
    for i, corner in enumerate(y.tolist()):
        x[i, 0, 6 * (corner // 2) :, 6 * (corner % 2) :] = 1.0
    at, t, v = noisy(x, torch.Generator().manual_seed(1))
    torch.manual_seed(0)
    for network in (DiffusionUNet(8, patch=3), DiT(32, 1, 2, size=12, patch=4)):
        before = float(v.square().mean())
        fit(network, x, y, steps=60, rate=5e-3, batch=16)
        with torch.no_grad():
            after = float((network(at, t, y) - v).square().mean())
        assert after < 2 / 3 * before, type(network).__name__


def test_impossible_patches_are_refused() -> None:
    from netsuke.models.diffusion_unet import DiffusionUNet
    from netsuke.models.dit import DiT

    with pytest.raises(UsageError, match="divisor of the size"):
        DiT(size=28, patch=3)
    with pytest.raises(UsageError, match="at least 1"):
        DiffusionUNet(patch=0)


def test_images_of_a_file_in_the_shape_of_the_network(tmp_path: Path) -> None:
    from netsuke.models.train_diffusion import images, train

    rng = np.random.default_rng(0)
    for split in ("train", "t10k"):
        for kind, data in (
            ("images-idx3", rng.integers(0, 256, (20, 28, 28)).astype(np.uint8)),
            ("labels-idx1", (np.arange(20) % 10).astype(np.uint8)),
        ):
            head = b"\0\0\x08" + bytes([data.ndim]) + b"".join(n.to_bytes(4, "big") for n in data.shape)
            (tmp_path / "mnist").mkdir(exist_ok=True)
            path = tmp_path / "mnist" / f"{split}-{kind}-ubyte.gz"
            path.write_bytes(gzip.compress(head + data.tobytes()))
    x, y = images("mnist:train", tmp_path)
    assert x.shape == (20, 1, 28, 28)
    assert (float(x.min()), float(x.max())) == (-1.0, 1.0)
    assert y.tolist() == [i % 10 for i in range(20)]
    network = train("fashion_unet", steps=2, batch=4, data="mnist", root=tmp_path)
    assert not network.training
    with pytest.raises(UsageError, match="another size"):
        train("digits_unet", steps=2, data="mnist", root=tmp_path)
    np.savez(tmp_path / "signed.npz", x=np.full((4, 1, 28, 28), -1, np.float32), y=np.arange(4))
    with pytest.raises(UsageError, match="no labelled images"):
        images(str(tmp_path / "signed.npz"))


def test_the_command_line_compresses_and_the_program_generates(tmp_path: Path) -> None:
    from typer.testing import CliRunner

    from netsuke.cli.main import app

    np.savez(tmp_path / "calib.npz", **arrays(48))
    out = tmp_path / "small.nsk"
    command = ["compress", "digits_unet", "-o", str(out), "--calib", str(tmp_path / "calib.npz"), "--effort", "fast"]
    result = CliRunner().invoke(app, command)
    assert result.exit_code == 0, result.output
    program = engine.load(out)
    noise, classes = starts(16, (1, 8, 8))
    images = sample(
        lambda x, t, y: np.asarray(next(iter(program.run({"image": x, "time": t, "label": y}).values()))),
        noise,
        classes,
    )
    assert images.shape == noise.shape
    assert float(np.abs(images).max()) <= 1.0
