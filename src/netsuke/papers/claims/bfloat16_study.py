"""Kalamkar et al. 2019: training with bfloat16 operands matches f32 with the same hyper-parameters.

Paper: vision, language and other networks reach f32 quality in the same iterations, untuned.
Checked: three workloads on the digits, each trained from scratch in f32 and with bfloat16 operands from the same
start and batches: the residual CNN, a small vision transformer, and an autoencoder of linear layers (signal to error
of held-out images, in dB). f32 is trained with a second seed too: the distance between seeds is the noise. Exact:
rounding equals the format bit for bit in three modes. Statistical: bfloat16 within 1 point (0.3 dB) of f32, and no
farther from it than another seed, within half a point (0.1 dB).
"""

from __future__ import annotations

import math
from itertools import pairwise
from typing import Any

import numpy as np

from netsuke.papers.claim import Claim, Compare, Context, Outcome, register


def bits_agree(seed: int) -> bool:
    """The torch rounding against the format's on random bit patterns, three modes."""
    import torch

    from netsuke.formats import round_bf16
    from netsuke.nn.bfloat16 import ROUNDINGS, round_bfloat16

    rng = np.random.default_rng(seed)
    x = rng.integers(0, 2**32, 200_000, dtype=np.uint32).view(np.float32)
    x = x[~np.isnan(x)]
    noise = rng.integers(0, 65536, x.shape)
    same = []
    for mode in ROUNDINGS:
        random = mode == "stochastic"
        wanted = round_bf16(x, mode, uniform=noise / 65536 if random else None)
        found = round_bfloat16(torch.from_numpy(x.copy()), mode, noise=torch.from_numpy(noise) if random else None)
        same.append(np.array_equal(found.numpy().view(np.uint32), wanted.view(np.uint32)))
    return all(same)


def workloads() -> dict[str, Any]:
    """Name -> (seed, how) -> metric; how changes a network before it trains."""
    import torch
    from torch import nn

    from netsuke.models.digits import DigitsCNN
    from netsuke.papers.claims._digits_train import tensors, top1
    from netsuke.papers.claims._digits_vit import fit, pictures, vit

    torch.set_num_threads(1)

    def cnn(seed: int, how: Any) -> float:
        torch.manual_seed(seed)
        return top1(fit(how(DigitsCNN()), *tensors("train"), seed, epochs=8), *tensors("test"))

    def transformer(seed: int, how: Any) -> float:
        return top1(fit(how(vit(seed)), *pictures("train"), seed, epochs=12), *pictures("test"))

    def autoencoder(seed: int, how: Any) -> float:
        torch.manual_seed(seed)
        sizes = (64, 96, 12, 96, 64)
        layers = [m for a, b in pairwise(sizes) for m in (nn.Linear(a, b), nn.ReLU())]
        x, test = tensors("train")[0].flatten(1), tensors("test")[0].flatten(1)
        net = fit(how(nn.Sequential(*layers[:-1])), x, x, seed, epochs=30, loss=nn.functional.mse_loss)
        with torch.no_grad():
            error = (net(test) - test).square().sum() / test.square().sum()
        return -10 * math.log10(float(error))

    return {"cnn": cnn, "transformer": transformer, "autoencoder": autoencoder}


def measure(context: Context, seed: int) -> Outcome:
    """Every workload three times: f32, bfloat16, f32 from another seed."""
    from netsuke.methods.integer.bfloat16 import Bfloat16, apply

    figures: dict[str, float] = {}
    for name, run in workloads().items():
        plain, narrow = run(seed, lambda m: m), run(seed, lambda m: apply(m, Bfloat16(seed=seed)))
        other = run(seed + 100, lambda m: m)
        figures |= {f"{name}_f32": plain, f"{name}_bf16": narrow, f"{name}_f32_other_seed": other}
        figures |= {f"{name}_distance": abs(narrow - plain), f"{name}_noise": abs(other - plain)}
        context.progress(f"seed {seed}: {name}: f32 {plain:.4f}, bfloat16 {narrow:.4f}, another seed {other:.4f}")
    return Outcome({"rounding equals the format, three modes": bits_agree(seed)}, figures)


CLAIM = register(
    Claim(
        id="bfloat16-study/workloads",
        paper="bfloat16-study",
        sentence="Three networks trained with bfloat16 operands end where f32 does, within the noise of seeds.",
        baseline="f32 from the same start and batches; f32 from another seed",
        measure=measure,
        compares=(
            Compare("cnn_bf16", "cnn_f32", -0.01),
            Compare("transformer_bf16", "transformer_f32", -0.01),
            Compare("autoencoder_bf16", "autoencoder_f32", -0.3),
            Compare("cnn_noise", "cnn_distance", -0.005),
            Compare("transformer_noise", "transformer_distance", -0.005),
            Compare("autoencoder_noise", "autoencoder_distance", -0.1),
        ),
        seeds=(0, 1),
        minutes=4,
        methods=("integer/bfloat16",),
    )
)
