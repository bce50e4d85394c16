"""ESPCN (Shi et al. 2016): super-resolution by sub-pixel convolution."""

from __future__ import annotations

from torch import Tensor, nn


class ESPCN(nn.Module):
    """Input luma [N, 1, H, W], output [N, 1, scale*H, scale*W]."""

    def __init__(self, scale: int = 3) -> None:
        super().__init__()
        self.body = nn.Sequential(
            nn.Conv2d(1, 64, 5, padding=2), nn.Tanh(), nn.Conv2d(64, 32, 3, padding=1), nn.Tanh(),
            nn.Conv2d(32, scale * scale, 3, padding=1), nn.PixelShuffle(scale),
        )  # fmt: skip

    def forward(self, x: Tensor) -> Tensor:
        return self.body(x)


def espcn() -> ESPCN:
    return ESPCN()
