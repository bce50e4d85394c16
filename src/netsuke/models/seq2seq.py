"""A small encoder-decoder transformer (Vaswani et al. 2017), pre-norm, ReLU between the layers of an MLP.

Input source ids int64 [N, S] and target ids int64 [N, T] that start with the start word; output logits [N, T, words] of
the next target word. Word 0 pads and is read like others.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from netsuke.models.vit import Attention

MASKED = -1e4


class CrossAttention(nn.Module):
    """Queries from x [N, T, C], keys and values from memory [N, S, C]."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads, self.scale = heads, (width // heads) ** -0.5
        self.q, self.k, self.v, self.proj = (nn.Linear(width, width) for _ in range(4))

    def _split(self, x: Tensor) -> Tensor:
        return x.reshape(x.shape[0], x.shape[1], self.heads, x.shape[2] // self.heads).transpose(1, 2)

    def forward(self, x: Tensor, mask: Tensor | None, memory: Tensor) -> Tensor:
        q, k, v = self._split(self.q(x)), self._split(self.k(memory)), self._split(self.v(memory))
        scores = (q * self.scale) @ k.transpose(-2, -1)
        y = (scores if mask is None else scores + mask).softmax(-1) @ v
        return self.proj(y.transpose(1, 2).reshape(x.shape))


def _mlp(width: int) -> nn.Sequential:
    return nn.Sequential(nn.Linear(width, 4 * width), nn.ReLU(), nn.Linear(4 * width, width))


class Encoder(nn.Module):
    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.norm1, self.attn = nn.LayerNorm(width), Attention(width, heads)
        self.norm2, self.mlp = nn.LayerNorm(width), _mlp(width)

    def forward(self, x: Tensor) -> Tensor:
        x = x + self.attn(self.norm1(x))
        return x + self.mlp(self.norm2(x))


class Decoder(nn.Module):
    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.norm1, self.attn = nn.LayerNorm(width), Attention(width, heads)
        self.norm2, self.cross = nn.LayerNorm(width), CrossAttention(width, heads)
        self.norm3, self.mlp = nn.LayerNorm(width), _mlp(width)

    def forward(self, x: Tensor, mask: Tensor, memory: Tensor) -> Tensor:
        x = x + self.attn(self.norm1(x), mask)
        x = x + self.cross(self.norm2(x), None, memory)
        return x + self.mlp(self.norm3(x))


class Seq2Seq(nn.Module):
    """`depth` encoder and decoder blocks; lengths are the largest that position embeddings hold."""

    def __init__(self, words: int, width: int, heads: int, depth: int, lengths: tuple[int, int]) -> None:
        super().__init__()
        self.source, self.target = nn.Embedding(words, width), nn.Embedding(words, width)
        self.places = nn.ModuleList(nn.Embedding(length, width) for length in lengths)
        self.encoder = nn.ModuleList(Encoder(width, heads) for _ in range(depth))
        self.decoder = nn.ModuleList(Decoder(width, heads) for _ in range(depth))
        self.memory_norm, self.norm = nn.LayerNorm(width), nn.LayerNorm(width)
        self.head = nn.Linear(width, words)
        self.register_buffer("mask", torch.full((lengths[1], lengths[1]), MASKED).triu(1), persistent=False)
        for module in self.modules():
            if isinstance(module, nn.Embedding):
                nn.init.normal_(module.weight, std=0.5)

    def encode(self, ids: Tensor) -> Tensor:
        """Memory [N, S, C]."""
        x = self.source(ids) + self.places[0](torch.arange(ids.shape[1], device=ids.device))
        for block in self.encoder:
            x = block(x)
        return self.memory_norm(x)

    def decode(self, memory: Tensor, ids: Tensor) -> Tensor:
        """Logits [N, T, words]."""
        steps = ids.shape[1]
        x = self.target(ids) + self.places[1](torch.arange(steps, device=ids.device))
        mask = self.get_buffer("mask")[:steps, :steps]
        for block in self.decoder:
            x = block(x, mask, memory)
        return self.head(self.norm(x))

    def forward(self, source: Tensor, target: Tensor) -> Tensor:
        return self.decode(self.encode(source), target)

    @torch.no_grad()
    def translate(self, source: Tensor, start: int, most: int) -> Tensor:
        """Greedy words [N, most], the start word first."""
        memory = self.encode(source)
        ids = torch.full((len(source), 1), start, dtype=torch.int64, device=source.device)
        for _ in range(most - 1):
            ids = torch.cat([ids, self.decode(memory, ids)[:, -1:].argmax(-1)], 1)
        return ids


def toy_translator() -> Seq2Seq:
    """For the toy languages of `netsuke.data.toy_text`: one block a side, width 64."""
    from netsuke.data.toy_text import SOURCE_LENGTH, TARGET_LENGTH, TARGET_WORDS

    return Seq2Seq(TARGET_WORDS, 64, 4, 1, (SOURCE_LENGTH, TARGET_LENGTH))
