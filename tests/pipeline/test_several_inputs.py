"""Networks with several inputs: data come as one array per input, named as they are."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from netsuke import engine
from netsuke.capture import capture
from netsuke.core.errors import UsageError
from netsuke.data import Dataset, fields, load_data
from netsuke.pipeline import compress
from netsuke.verify import check

RNG = np.random.default_rng(5)


def arrays(count: int) -> dict[str, Any]:
    """Token ids and a mask that hides a tail of different length in every sample."""
    lengths = RNG.integers(2, 9, count)
    mask = (np.arange(8)[None] < lengths[:, None]).astype(np.int64)
    return {"mask": mask, "ids": RNG.integers(0, 50, (count, 8))}


def encoder() -> Any:
    """An encoder of one layer with attention under a mask."""
    import torch
    from torch import nn

    class Encoder(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.table = nn.Embedding(50, 16)
            self.q, self.k, self.v, self.out = (nn.Linear(16, 16) for _ in range(4))
            self.norm, self.head = nn.LayerNorm(16), nn.Linear(16, 3)

        def forward(self, ids: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
            x = self.table(ids)
            scores = self.q(x) @ self.k(x).transpose(1, 2) / 4.0
            scores = scores.masked_fill(mask[:, None, :] == 0, -1e4)
            x = self.norm(x + self.out(scores.softmax(-1) @ self.v(x)))
            weight = mask.to(x.dtype)[:, :, None]
            return self.head((x * weight).sum(1) / weight.sum(1))

    torch.manual_seed(0)
    return Encoder().eval()


@pytest.fixture(scope="module")
def small(tmp_path_factory: pytest.TempPathFactory) -> Any:
    folder = tmp_path_factory.mktemp("several")
    np.savez(folder / "calib.npz", **arrays(32))
    return compress(encoder(), calib=str(folder / "calib.npz"), output=folder / "small.nsk", measure=False)


def test_a_file_with_an_array_per_input_is_read_in_step(tmp_path: Path) -> None:
    given = arrays(10)
    np.savez(tmp_path / "x.npz", y=np.arange(10), **given)
    data = load_data(tmp_path / "x.npz")
    assert data.shapes == {"mask": (8,), "ids": (8,)}
    seen = list(data.take(6, 1).batches(4))
    rows = np.concatenate([y for _, y in seen])
    for name, array in given.items():
        assert np.array_equal(np.concatenate([fields(x)[name] for x, _ in seen]), array[rows])
    assert data.sha256 != load_data(tmp_path / "x.npz").take(6).sha256


def test_compress_and_check(small: Any, tmp_path: Path) -> None:
    assert {"qlinear"} <= {n.op for n in small.program.nodes}
    assert small.exactness.exact
    given = arrays(24)
    wanted = engine.load(compile_float()).run(given)
    np.savez(tmp_path / "eval.npz", y=next(iter(wanted.values())).argmax(1), **given)
    found = check(small, encoder(), str(tmp_path / "eval.npz"))
    assert found.problems == []
    assert found.float_metrics["top1"] == 1.0
    assert found.compressed_metrics["top1"] > 0.8
    assert all(row["ok"] for row in found.batch_sizes)


def compile_float() -> Any:
    from netsuke.passes import compile_program

    shapes = {"ids": (1, 8), "mask": (1, 8)}
    return compile_program(capture(encoder(), shape=shapes, dtype={"ids": "i64", "mask": "i64"}))


def test_data_that_do_not_fit_are_told_apart() -> None:
    with pytest.raises(UsageError, match=r"no such argument.*token"):
        compress(encoder(), calib={"token": np.zeros((4, 8), np.int64), "mask": np.zeros((4, 8), np.int64)})
    graph = capture(encoder(), shape=[(1, 8), (1, 8)], dtype="i64")
    with pytest.raises(UsageError, match="no data for this input"):
        compress(graph, calib={"ids": np.zeros((4, 8), np.int64)})
    with pytest.raises(UsageError, match="one array for several inputs"):
        compress(graph, calib=Dataset.from_arrays(np.zeros((4, 8), np.int64)))
    with pytest.raises(UsageError, match="different numbers of samples"):
        Dataset.from_arrays({"ids": np.zeros((4, 8)), "mask": np.zeros((3, 8))})
