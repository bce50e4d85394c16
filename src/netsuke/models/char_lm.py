"""A character-level decoder: the usual pre-norm transformer with causal attention over ASCII codes.

Input token ids int64 [N, T] (T at most `length`), output logits [N, T, vocabulary] of the next character. Trained by
`python -m netsuke.models.train_lm`.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from netsuke.models.vit import EncoderBlock

VOCABULARY = 128  # ASCII
MASKED = -1e9


class CharLM(nn.Module):
    """Token and position embeddings, `depth` pre-norm blocks behind a causal mask, norm, output layer."""

    def __init__(self, width: int = 160, heads: int = 4, depth: int = 4, length: int = 128) -> None:
        super().__init__()
        self.token, self.position = nn.Embedding(VOCABULARY, width), nn.Embedding(length, width)
        self.blocks = nn.ModuleList(EncoderBlock(width, heads) for _ in range(depth))
        self.norm, self.head = nn.LayerNorm(width, eps=1e-6), nn.Linear(width, VOCABULARY)
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


def char_lm() -> CharLM:
    """1.3 M parameters, 128 characters of context."""
    return CharLM()


def char_lm_tiny() -> CharLM:
    """For tests: two blocks of width 48, 32 characters of context."""
    return CharLM(48, 2, 2, 32)
