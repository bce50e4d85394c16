"""Class-conditional denoisers of small images: a residual U-Net (Ho et al. 2020, arXiv 2006.11239) made small.

`python -m netsuke.models.train_diffusion digits_unet` trains them; the package ships the weights for 8x8 digits. Batch
norm and ReLU instead of group norm and SiLU, so that convolutions fuse with what follows them. Time (and class) go
through an embedding of two layers and one projection per residual block.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from netsuke.core.errors import Problem, UsageError


class TimeEmbedding(nn.Module):
    """Sines and cosines of the time (thousandths, f32 [N]) at `width` / 2 frequencies, then two layers: [N, out]."""

    freqs: Tensor

    def __init__(self, width: int, out: int) -> None:
        super().__init__()
        half = width // 2
        self.register_buffer("freqs", torch.exp(-math.log(1000.0) * torch.arange(half) / half), persistent=False)
        self.first, self.second = nn.Linear(width, out), nn.Linear(out, out)

    def forward(self, t: Tensor) -> Tensor:
        angle = t.unsqueeze(1) * self.freqs
        return self.second(F.silu(self.first(torch.cat([angle.sin(), angle.cos()], 1))))


class TimedBlock(nn.Module):
    """Two convolutions with batch norm, the embedding added between them, and a shortcut."""

    def __init__(self, cin: int, cout: int, emb: int) -> None:
        super().__init__()
        self.conv1, self.norm1 = nn.Conv2d(cin, cout, 3, padding=1, bias=False), nn.BatchNorm2d(cout)
        self.emb = nn.Linear(emb, cout)
        self.conv2, self.norm2 = nn.Conv2d(cout, cout, 3, padding=1, bias=False), nn.BatchNorm2d(cout)
        self.short = nn.Conv2d(cin, cout, 1) if cin != cout else nn.Identity()

    def forward(self, x: Tensor, e: Tensor) -> Tensor:
        h = F.relu(self.norm1(self.conv1(x)) + self.emb(e).unsqueeze(2).unsqueeze(3))
        return F.relu(self.norm2(self.conv2(h)) + self.short(x))


class Attend(nn.Module):
    """Single-head attention of queries [N, T, C] over `source` [N, S, D], both products visible to exporters."""

    def __init__(self, width: int, source: int) -> None:
        super().__init__()
        self.scale = width**-0.5
        self.to_q = nn.Linear(width, width, bias=False)
        self.to_k, self.to_v = nn.Linear(source, width, bias=False), nn.Linear(source, width, bias=False)
        self.to_out = nn.Linear(width, width)

    def forward(self, x: Tensor, source: Tensor) -> Tensor:
        scores = (self.to_q(x) * self.scale) @ self.to_k(source).transpose(1, 2)
        return self.to_out(scores.softmax(-1) @ self.to_v(source))


class SpatialTransformer(nn.Module):
    """Self-attention over the positions of [N, C, H, W], cross-attention over condition tokens where there are any,
    feed-forward."""

    def __init__(self, width: int, tokens: int = 0) -> None:
        super().__init__()
        self.norm1, self.attn1 = nn.LayerNorm(width), Attend(width, width)
        self.norm2 = nn.LayerNorm(width) if tokens else None
        self.attn2 = Attend(width, tokens) if tokens else None
        self.norm3 = nn.LayerNorm(width)
        self.ff = nn.Sequential(nn.Linear(width, 2 * width), nn.GELU(), nn.Linear(2 * width, width))

    def forward(self, x: Tensor, tokens: Tensor | None = None) -> Tensor:
        h = x.flatten(2).transpose(1, 2)
        normed = self.norm1(h)
        h = h + self.attn1(normed, normed)
        if self.attn2 is not None and self.norm2 is not None and tokens is not None:
            h = h + self.attn2(self.norm2(h), tokens)
        h = h + self.ff(self.norm3(h))
        return h.transpose(1, 2).reshape(x.shape)


class Prompt(nn.Module):
    """The class as tokens [N, 1 + 2, width] behind a first token that is the same in every prompt.

    In text encoders the first token's numbers are orders of magnitude larger than all others (Zhao et al. 2024, arXiv
    2405.17873); `first` plants that: a fixed vector with entries of that size, kept from the start of training.
    """

    def __init__(self, width: int, first: float) -> None:
        super().__init__()
        self.table, self.start = nn.Embedding(10, 2 * width), nn.Embedding(1, width)
        signs = torch.where(torch.arange(width) % 2 == 0, 1.0, -1.0)
        self.start.weight = nn.Parameter((first * signs).unsqueeze(0), requires_grad=False)

    def forward(self, label: Tensor) -> Tensor:
        rest = self.table(label).unflatten(1, (2, -1))
        return torch.cat([self.start((label * 0).unsqueeze(1)), rest], 1)


class DiffusionUNet(nn.Module):
    """image [N, 1, S, S], time f32 [N] in thousandths, label i64 [N] -> v [N, 1, S, S]; 2 * patch divides S.

    width  of the finer of two levels; first: 0 puts the class into the embedding, else into a prompt of three tokens
           (read by cross-attention) whose first has entries of that size
    patch  pixels a side that the finer level sees as one: images of 28x28 take 2, levels of 14x14 and 7x7
    """

    def __init__(self, width: int = 24, first: float = 0.0, patch: int = 1) -> None:
        super().__init__()
        if patch < 1:
            raise UsageError(Problem("patch", "DiffusionUNet", str(patch), "at least 1"))
        emb, wide = 2 * width, 2 * width
        self.time = TimeEmbedding(32, emb)
        self.label = nn.Embedding(10, emb) if not first else None
        self.prompt = Prompt(width, first) if first else None
        self.stem = nn.Conv2d(1, width, 3 if patch == 1 else patch, patch, padding=1 if patch == 1 else 0)
        self.down1 = TimedBlock(width, width, emb)
        self.shrink = nn.Sequential(nn.Conv2d(width, wide, 3, 2, 1, bias=False), nn.BatchNorm2d(wide), nn.ReLU())
        self.down2 = TimedBlock(wide, wide, emb)
        self.middle = SpatialTransformer(wide, width if first else 0)
        self.up2 = TimedBlock(wide, wide, emb)
        self.grow = nn.Sequential(nn.Conv2d(wide, 4 * width, 1), nn.PixelShuffle(2))
        self.up1 = TimedBlock(2 * width, width, emb)
        self.head = nn.Conv2d(width, patch * patch, 3, padding=1)
        self.unpatch = nn.Identity() if patch == 1 else nn.PixelShuffle(patch)

    def forward(self, image: Tensor, time: Tensor, label: Tensor) -> Tensor:
        e = self.time(time)
        e = F.relu(e if self.label is None else e + self.label(label))
        tokens = None if self.prompt is None else self.prompt(label)
        fine = self.down1(F.relu(self.stem(image)), e)
        h = self.down2(self.shrink(fine), e)
        h = self.grow(self.up2(self.middle(h, tokens), e))
        return self.unpatch(self.head(self.up1(torch.cat([h, fine], 1), e)))


def digits_unet() -> DiffusionUNet:
    return DiffusionUNet()


def digits_prompt_unet() -> DiffusionUNet:
    """The same with the class as a prompt; its first token is 40 times as large as the others start."""
    return DiffusionUNet(first=40.0)


def fashion_unet() -> DiffusionUNet:
    """For 28x28 images, 0.28 M parameters; a training step of 64 images takes 0.23 s on one core."""
    return DiffusionUNet(32, patch=2)
