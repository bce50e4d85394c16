"""The diffusion networks: captured with three inputs, compiled, compressed, and what they generate."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from netsuke import engine, models
from netsuke.capture import capture
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
