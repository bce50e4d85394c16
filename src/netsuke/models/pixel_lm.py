"""A decoder that writes an image pixel by pixel: grey levels as tokens, the class as the first one.

The plainest of the language-style image generators (van den Oord et al. 2016, arXiv 1601.06759, with the transformer of
Chen et al. 2020, "Generative Pretraining from Pixels"). Input tokens int64 [N, T] (T at most size * size): the class as
`levels + class`, then the pixels row by row; output logits [N, T, levels] of the next pixel. It has no entry in
`MODELS`: its widths are those of a sweep (`netsuke.pipeline.scaling`).
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from netsuke.models.char_lm import MASKED
from netsuke.models.vit import Attention, EncoderBlock

LEVELS, CLASSES, SIDE = 17, 10, 8  # scikit-learn's digits have 17 grey levels


class PixelLM(nn.Module):
    """Token and position embeddings, `depth` pre-norm blocks behind a causal mask, norm, output layer."""

    def __init__(self, width: int = 32, heads: int = 2, depth: int = 2, side: int = SIDE, levels: int = LEVELS) -> None:
        super().__init__()
        self.side, self.levels, length = side, levels, side * side
        self.token, self.position = nn.Embedding(levels + CLASSES, width), nn.Embedding(length, width)
        self.blocks = nn.ModuleList(EncoderBlock(width, heads, 2) for _ in range(depth))
        self.norm, self.head = nn.LayerNorm(width, eps=1e-6), nn.Linear(width, levels)
        self.register_buffer("mask", torch.full((length, length), MASKED).triu(1), persistent=False)
        for module in self.modules():
            if isinstance(module, (nn.Linear, nn.Embedding)):
                nn.init.normal_(module.weight, std=0.05)

    def forward(self, tokens: Tensor) -> Tensor:
        steps = tokens.shape[1]
        x = self.token(tokens) + self.position(torch.arange(steps, device=tokens.device))
        mask = self.get_buffer("mask")[:steps, :steps]
        for block in self.blocks:
            x = block(x, mask)
        return self.head(self.norm(x))


def tokens_of(images: Tensor, labels: Tensor, levels: int = LEVELS) -> tuple[Tensor, Tensor]:
    """Images [N, 1, S, S] in [0, 1] and classes [N] as (input tokens, wanted tokens), both int64 [N, S * S]."""
    pixels = (images.flatten(1) * (levels - 1)).round().long()
    return torch.cat([levels + labels[:, None], pixels[:, :-1]], 1), pixels


def generate(network: nn.Module, labels: Tensor, rng: torch.Generator) -> Tensor:
    """Images [N, 1, S, S] in [-1, 1], every pixel drawn from the distribution of a `PixelLM` (or one whose linear
    layers were replaced). Keys and values of earlier pixels are kept: 64 single steps instead of 64 whole runs."""
    net: PixelLM = network  # type: ignore[assignment]
    now, drawn = net.levels + labels, []
    memory: list[tuple[Tensor, Tensor] | None] = [None] * len(net.blocks)
    with torch.no_grad():
        for step in range(net.side**2):
            x = net.token(now)[:, None] + net.position.weight[step]
            for i, block in enumerate(net.blocks):
                y, memory[i] = _attend(block.attn, block.norm1(x), memory[i])  # type: ignore[arg-type, operator]
                x = x + y
                x = x + block.mlp(block.norm2(x))  # type: ignore[operator]
            now = torch.multinomial(net.head(net.norm(x))[:, 0].softmax(-1), 1, generator=rng)[:, 0]
            drawn.append(now)
    return (2.0 * torch.stack(drawn, 1) / (net.levels - 1) - 1).reshape(-1, 1, net.side, net.side)


def _attend(layer: Attention, x: Tensor, before: tuple[Tensor, Tensor] | None) -> tuple[Tensor, tuple[Tensor, Tensor]]:
    """Attention of one more position x [N, 1, C] over all so far."""
    q, k, v = layer.qkv(x).reshape(len(x), 1, 3, layer.heads, -1).permute(2, 0, 3, 1, 4)
    if before is not None:
        k, v = torch.cat([before[0], k], 2), torch.cat([before[1], v], 2)
    y = ((q * layer.scale) @ k.transpose(-2, -1)).softmax(-1) @ v
    return layer.proj(y.transpose(1, 2).flatten(2)), (k, v)
