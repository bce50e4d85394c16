"""Swin-T (Liu et al. 2021): attention in shifted windows with relative position bias, patch merging between stages."""

from __future__ import annotations

import torch
from torch import Tensor, nn


def _relative_index(window: int) -> Tensor:
    """[w*w, w*w] index into the table of (2w-1)^2 relative positions."""
    grid = torch.stack(torch.meshgrid(torch.arange(window), torch.arange(window), indexing="ij")).flatten(1)
    delta = grid[:, :, None] - grid[:, None, :] + window - 1
    return delta[0] * (2 * window - 1) + delta[1]


def _shift_mask(size: int, window: int, shift: int) -> Tensor:
    """[windows, w*w, w*w] additive mask: -100 between pixels that only the cyclic shift made neighbours."""
    region = torch.zeros(size, size)
    edges = (slice(0, -window), slice(-window, -shift), slice(-shift, None))
    for i, rows in enumerate(edges):
        for j, columns in enumerate(edges):
            region[rows, columns] = 3 * i + j
    cells = (
        region.reshape(size // window, window, size // window, window).permute(0, 2, 1, 3).reshape(-1, window * window)
    )
    return (cells[:, None, :] != cells[:, :, None]).float() * -100.0


class WindowAttention(nn.Module):
    """Self-attention inside windows: [N * windows, w*w, C]."""

    def __init__(self, width: int, heads: int, window: int, size: int, shift: int) -> None:
        super().__init__()
        self.heads, self.scale = heads, (width // heads) ** -0.5
        self.qkv, self.proj = nn.Linear(width, 3 * width), nn.Linear(width, width)
        self.table = nn.Parameter(0.02 * torch.randn((2 * window - 1) ** 2, heads))
        self.index: Tensor
        self.mask: Tensor | None
        self.register_buffer("index", _relative_index(window), persistent=False)
        self.register_buffer("mask", _shift_mask(size, window, shift) if shift else None, persistent=False)

    def forward(self, x: Tensor) -> Tensor:
        cells, tokens, width = x.shape
        q, k, v = self.qkv(x).reshape(cells, tokens, 3, self.heads, width // self.heads).permute(2, 0, 3, 1, 4)
        scores = (q * self.scale) @ k.transpose(-2, -1) + self.table[self.index].permute(2, 0, 1)
        if self.mask is not None:
            windows = self.mask.shape[0]
            scores = scores.reshape(-1, windows, self.heads, tokens, tokens) + self.mask[:, None]
            scores = scores.reshape(-1, self.heads, tokens, tokens)
        y = scores.softmax(-1) @ v
        return self.proj(y.transpose(1, 2).reshape(-1, tokens, width))


class SwinBlock(nn.Module):
    """One block on [N, H, W, C]; odd blocks shift the windows by half."""

    def __init__(self, width: int, heads: int, size: int, window: int, shifted: bool) -> None:
        super().__init__()
        window = min(window, size)
        self.window, self.size = window, size
        self.shift = window // 2 if shifted and size > window else 0
        self.norm1, self.attn = nn.LayerNorm(width), WindowAttention(width, heads, window, size, self.shift)
        self.norm2 = nn.LayerNorm(width)
        self.mlp = nn.Sequential(nn.Linear(width, 4 * width), nn.GELU(), nn.Linear(4 * width, width))

    def forward(self, x: Tensor) -> Tensor:
        w, cells, width = self.window, self.size // self.window, x.shape[-1]
        y = self.norm1(x)
        if self.shift:
            y = torch.roll(y, (-self.shift, -self.shift), (1, 2))
        y = y.reshape(-1, cells, w, cells, w, width).transpose(2, 3).reshape(-1, w * w, width)
        y = self.attn(y).reshape(-1, cells, cells, w, w, width).transpose(2, 3).reshape(-1, self.size, self.size, width)
        if self.shift:
            y = torch.roll(y, (self.shift, self.shift), (1, 2))
        x = x + y
        return x + self.mlp(self.norm2(x))


class PatchMerging(nn.Module):
    """[N, H, W, C] to [N, H/2, W/2, 2C]."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.norm, self.reduction = nn.LayerNorm(4 * width), nn.Linear(4 * width, 2 * width, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        corners = (x[:, 0::2, 0::2], x[:, 1::2, 0::2], x[:, 0::2, 1::2], x[:, 1::2, 1::2])
        return self.reduction(self.norm(torch.cat(corners, -1)))


class Swin(nn.Module):
    """Input [N, 3, size, size], output logits [N, classes]."""

    def __init__(
        self, width: int = 96, depths: tuple[int, ...] = (2, 2, 6, 2), heads: tuple[int, ...] = (3, 6, 12, 24),
        size: int = 224, window: int = 7, classes: int = 1000,
    ) -> None:  # fmt: skip
        super().__init__()
        self.patch_embed, self.norm0 = nn.Conv2d(3, width, 4, 4), nn.LayerNorm(width)
        layers: list[nn.Module] = []
        resolution = size // 4
        for stage, depth in enumerate(depths):
            if stage:
                layers.append(PatchMerging(width))
                width, resolution = 2 * width, resolution // 2
            layers += [SwinBlock(width, heads[stage], resolution, window, bool(i % 2)) for i in range(depth)]
        self.layers, self.norm, self.head = nn.Sequential(*layers), nn.LayerNorm(width), nn.Linear(width, classes)

    def forward(self, x: Tensor) -> Tensor:
        x = self.norm0(self.patch_embed(x).permute(0, 2, 3, 1))
        return self.head(self.norm(self.layers(x)).mean((1, 2)))


def swin_t() -> Swin:
    return Swin()
