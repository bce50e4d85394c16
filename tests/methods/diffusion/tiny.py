"""A U-Net and a transformer small enough to tune in a test, and a short sampling run."""

from __future__ import annotations

import torch
from torch import nn

from netsuke.methods.diffusion._sampling import Sampling
from netsuke.models.diffusion_unet import DiffusionUNet
from netsuke.models.dit import DiT

SAMPLING = Sampling(steps=2, shape=(1, 4, 4), count=16)


def unet(seed: int = 0) -> nn.Module:
    torch.manual_seed(seed)
    return DiffusionUNet(width=4).eval()


def dit(seed: int = 0) -> nn.Module:
    """With modulations that are not zero: a fresh DiT is the identity."""
    torch.manual_seed(seed)
    made = DiT(width=8, depth=2, heads=2, size=4)
    for block in made.blocks:
        nn.init.normal_(block.modulation.weight, std=0.3)  # type: ignore[union-attr, arg-type]
    return made.eval()
