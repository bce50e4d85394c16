"""A small character model on tinyshakespeare, trained, judged by the engine: shared by claims on language models."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from netsuke.data import Dataset
from netsuke.data.text import characters, windows
from netsuke.papers.claim import Context
from netsuke.papers.claims.odysseyllm import TEXT, perplexity

__all__ = ["LENGTH", "compiled", "held_out", "network", "perplexity", "text", "train"]

LENGTH, BATCH = 64, 32


def text(context: Context) -> Path:
    """The file below the data root."""
    assert context.data_root is not None
    return context.data_root / TEXT


def network(width: int, seed: int, depth: int = 2) -> Any:
    """A decoder with 64 characters of context, heads of 32."""
    import torch

    from netsuke.models.char_lm import CharLM

    torch.manual_seed(seed)
    return CharLM(width, width // 32, depth, LENGTH)


def held_out(path: Path, seed: int, count: int = 256) -> Dataset:
    """Windows of the last tenth of the text, which is never trained on."""
    return windows(path, LENGTH, "test").take(count, seed)


def train(model: Any, path: Path, seed: int, *, steps: int, rate: float = 4e-3) -> Any:
    """AdamW with a one-cycle rate on windows drawn at random; returns the model in eval mode."""
    import torch
    from torch.nn import functional

    from netsuke.models.train_lm import batch

    rng = torch.Generator().manual_seed(seed)
    codes = torch.from_numpy(characters(path))
    codes = codes[: int(len(codes) * 0.9)]
    parameters = [p for p in model.parameters() if p.requires_grad]
    optimizer = torch.optim.AdamW(parameters, lr=rate, weight_decay=0.01, betas=(0.9, 0.98))
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, rate, total_steps=steps, pct_start=0.1)
    model.train()
    for _ in range(steps):
        x, y = batch(codes, LENGTH, BATCH, rng)
        loss = functional.cross_entropy(model(x).flatten(0, 1), y.flatten())
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(parameters, 1.0)
        optimizer.step()
        schedule.step()
    return model.eval()


def compiled(model: Any) -> Any:
    """The program of a trained network."""
    from netsuke.capture import capture
    from netsuke.passes import compile_program

    return compile_program(capture(model, shape=(1, LENGTH), dtype="i64"), name="char_lm")
