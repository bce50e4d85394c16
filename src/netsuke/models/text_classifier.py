"""A small text classifier: pre-norm transformer over word and position embeddings, mean over tokens, linear head.

Input token ids int64 [N, length] (0 pads, a token like others), output logits [N, classes]. Trained by
`python -m netsuke.models.train_text`.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from netsuke.models.vit import EncoderBlock


class TextClassifier(nn.Module):
    """`depth` blocks of width `width`; `tokens(x)` gives the last hidden states, for other heads."""

    def __init__(
        self,
        vocabulary: int = 4000,
        width: int = 64,
        heads: int = 4,
        depth: int = 2,
        length: int = 32,
        classes: int = 2,
    ) -> None:
        super().__init__()
        self.heads = heads
        self.word, self.position = nn.Embedding(vocabulary, width), nn.Embedding(length, width)
        self.blocks = nn.Sequential(*(EncoderBlock(width, heads) for _ in range(depth)))
        self.norm, self.head = nn.LayerNorm(width, eps=1e-6), nn.Linear(width, classes)
        for module in self.modules():
            if isinstance(module, nn.Embedding):
                nn.init.normal_(module.weight, std=0.5)

    def tokens(self, ids: Tensor) -> Tensor:
        """Hidden states [N, T, C] behind the last norm."""
        positions = torch.arange(ids.shape[1], device=ids.device)
        return self.norm(self.blocks(self.word(ids) + self.position(positions)))

    def forward(self, ids: Tensor) -> Tensor:
        return self.head(self.tokens(ids).mean(1))


def text_classifier() -> TextClassifier:
    """4,000 words, 32 tokens, 0.36 M parameters."""
    return TextClassifier()


def text_classifier_tiny() -> TextClassifier:
    """For the toy sentences: 80 words, 16 tokens."""
    return TextClassifier(80, 64, 4, 2, 16, 2)
