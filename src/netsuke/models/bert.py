"""A BERT-like text encoder (Devlin et al. 2018): post-norm transformer over token and position embeddings, tanh
pooler, classifier."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from netsuke.models.vit import Attention


class PostNormBlock(nn.Module):
    """norm(x + attention(x)), then norm(x + mlp(x))."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.attention, self.norm1 = Attention(width, heads), nn.LayerNorm(width, eps=1e-12)
        self.mlp = nn.Sequential(nn.Linear(width, 4 * width), nn.GELU(), nn.Linear(4 * width, width))
        self.norm2 = nn.LayerNorm(width, eps=1e-12)

    def forward(self, x: Tensor) -> Tensor:
        x = self.norm1(x + self.attention(x))
        return self.norm2(x + self.mlp(x))


class Bert(nn.Module):
    """Input token ids int64 [N, T], output logits [N, classes]."""

    def __init__(
        self,
        vocabulary: int = 8192,
        width: int = 128,
        heads: int = 2,
        depth: int = 2,
        length: int = 512,
        classes: int = 2,
    ) -> None:
        super().__init__()
        self.word, self.position = nn.Embedding(vocabulary, width), nn.Embedding(length, width)
        self.norm = nn.LayerNorm(width, eps=1e-12)
        self.encoder = nn.Sequential(*(PostNormBlock(width, heads) for _ in range(depth)))
        self.pooler, self.classifier = nn.Linear(width, width), nn.Linear(width, classes)

    def forward(self, tokens: Tensor) -> Tensor:
        positions = torch.arange(tokens.shape[1], device=tokens.device)
        x = self.encoder(self.norm(self.word(tokens) + self.position(positions)))
        return self.classifier(torch.tanh(self.pooler(x[:, 0])))


def bert_tiny() -> Bert:
    return Bert()
