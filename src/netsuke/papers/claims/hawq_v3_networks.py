"""Yao et al. 2021, "HAWQ-V3": bits that differ by layer beat 4 bits everywhere, on a ResNet and on a transformer.

Checked: the public CIFAR-10 ResNet-20 (1,000 lossless and 10,000 JPEG test images; on the lossless ones alone, whose
differences have a standard error of 0.4 points, three seeds gave -0.3) and a vision transformer trained on the digits
(359 test images). The file of the uniform 4-bit plan (activations 8 bits, first and last layer 8 bits) sets the budget
in bytes; integer program, dynamic program and Pareto sweep choose from 2 to 8 bits by the divergence of the
predictions on 32 unlabelled training images, and the choice is improved by up to 100 runs of the whole network over
1,024 of them. Every plan is rounded to nearest with corrected biases. Exact: no file is larger
than the uniform one; some layer has less and some more than 4 bits. Statistical: accuracy in the engine at least that
of the uniform plan.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from netsuke.papers.claim import Claim, Compare, Context, Outcome, register

ALLOCATORS = ("integer_program", "dynamic_program", "pareto")
ROUNDING = "quantize/bias_correction"
FORMATS = "w2a8+w3a8+w4a8+w5a8+w6a8+w8a8"
SAMPLES, TRIES = 1024, 100


def _compared(context: Context, seed: int, network: Any, calib: Any, test: tuple[Any, Any], shape: Any) -> Outcome:
    """The uniform plan, then one search per allocator within its bytes."""
    from netsuke import engine
    from netsuke.core.budget import Budget
    from netsuke.core.recipe import Recipe
    from netsuke.pipeline import compress, plan

    def made(*steps: str, size: int = 0) -> Any:
        recipe = Recipe.make([*steps, ROUNDING])
        options: dict[str, Any] = {"calib": calib, "shape": shape, "seed": seed}
        if size:
            searched = plan(network, recipe=recipe, budget=Budget(size=f"{size}B"), **options)
            return compress(network, searched, measure=False, **options)
        return compress(network, recipe=recipe, measure=False, effort="fast", **options)

    def top1(small: Any) -> float:
        run = engine.load(small.program)
        found = np.concatenate([np.asarray(run(part)) for part in np.array_split(test[0], len(test[0]) // 100)])
        return float((found.argmax(1) == test[1]).mean())

    uniform = made(f"quantize/uniform:weight_bits=4,activation_bits=8,samples={SAMPLES}")
    figures = {"top1_uniform": top1(uniform), "bytes": float(uniform.bytes_after)}
    exact = {}
    for name in ALLOCATORS:
        search = f"bits/search:sensitivity=kl,allocator={name},formats={FORMATS},compare={SAMPLES},refine={TRIES}"
        base = f"quantize/uniform:weight_bits=8,activation_bits=8,samples={SAMPLES}"
        small = made(base, search, size=uniform.bytes_after)
        figures[f"top1_{name}"], figures[f"bytes_{name}"] = top1(small), float(small.bytes_after)
        widths = [row.weight_bits for row in small.plan.rows if row.weight_bits]
        exact[f"{name}: no larger than the uniform file"] = small.bytes_after <= uniform.bytes_after
        exact[f"{name}: widths differ"] = min(widths) < 4 < max(widths[1:-1])
        context.progress(f"seed {seed}: {name}: {figures[f'top1_{name}']:.4f} against {figures['top1_uniform']:.4f}")
    return Outcome(exact, figures)


def measure_resnet(context: Context, seed: int) -> Outcome:
    """CIFAR-10 ResNet-20."""
    from netsuke.data import load_data
    from netsuke.papers.claims import _cifar

    root: Path | None = context.data_root
    calib = load_data("cifar10:train", root).take(SAMPLES, seed)
    parts = [p for split in ("test", "test-jpeg") for p in load_data(f"cifar10:{split}", root).batches(500)]
    test = np.concatenate([p[0] for p in parts]), np.concatenate([np.asarray(p[1], np.int64) for p in parts])
    return _compared(context, seed, _cifar.network(context), calib, test, (1, 3, 32, 32))


def measure_vit(context: Context, seed: int) -> Outcome:
    """A transformer trained on the digits."""
    import torch

    from netsuke.capture import capture
    from netsuke.papers.claims._digits_vit import SHAPE, fit, pictures, vit

    torch.set_num_threads(1)
    x, y = pictures("train")
    test, labels = pictures("test")
    graph = capture(fit(vit(seed), x, y, seed, epochs=20), shape=SHAPE)
    rows = torch.randperm(len(x), generator=torch.Generator().manual_seed(seed))[:SAMPLES]
    return _compared(context, seed, graph, x[rows].numpy(), (test.numpy(), labels.numpy()), SHAPE)


def _claim(part: str, network: str, measure: Any, **options: Any) -> Claim:
    return Claim(
        id=f"hawq-v3/{part}",
        paper="hawq-v3",
        sentence=f"Bits chosen per layer by three allocators are as accurate as 4 bits everywhere on {network}.",
        baseline="the uniform plan of the same bytes: 4-bit weights, first and last layer 8 bits, same rounding",
        measure=measure,
        compares=tuple(Compare(f"top1_{name}", "top1_uniform", 0.0) for name in ALLOCATORS),
        methods=("bits/search", "bits/kl", "bits/integer_program", "bits/dynamic_program", "bits/pareto"),
        **options,
    )


CLAIMS = (
    register(_claim("resnet20", "ResNet-20", measure_resnet, minutes=20, data=("cifar10",))),
    register(_claim("vit", "a small vision transformer", measure_vit, minutes=8, seeds=(0, 1))),
)
