"""A trained CIFAR-10 ResNet-20 from the data root, quantized by a recipe and judged by the engine: shared by claims."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from netsuke.core.errors import FileError, Problem
from netsuke.data import Dataset, load_data
from netsuke.models import build
from netsuke.papers.claim import Context
from netsuke.pipeline import compress

WEIGHTS = ("cifar10_resnet/resnet20.safetensors", "../models/cifar10_resnet/resnet20.safetensors")
SAMPLES = 512


def network(context: Context) -> Any:
    """ResNet-20 with the public trained weights, looked for below and beside the data root."""
    root = context.data_root or Path()
    found = [root / name for name in WEIGHTS if (root / name).is_file()]
    if not found:
        where = str(root / WEIGHTS[0])
        raise FileError(Problem("the trained ResNet-20 is missing", where, hint="akamaster/pytorch_resnet_cifar10"))
    return build("resnet20", weights=found[0])


def small(context: Context, net: Any, recipe: Any, seed: int, samples: int = SAMPLES) -> Any:
    """Compressed with unlabelled training images drawn by the seed, judged on the 1,000 lossless test images."""
    calib: Dataset = load_data("cifar10:train", context.data_root).take(samples, seed)
    test = load_data("cifar10:test", context.data_root)
    result = compress(
        net, recipe=recipe, calib=calib, evaluate=test, shape=(1, 3, 32, 32), seed=seed, effort="fast", measure=False
    )
    context.progress(f"seed {seed}: {' '.join(recipe)}: {result.summary().splitlines()[0]}")
    return result


def top1(result: Any) -> tuple[float, float]:
    """Accuracy before and after, both by the engine."""
    return result.check.float_metrics["top1"], result.check.compressed_metrics["top1"]
