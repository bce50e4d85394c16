"""The shipped digits network, compressed with a recipe: shared by the claims of post-training quantization."""

from __future__ import annotations

from typing import Any

import numpy as np

from netsuke import engine
from netsuke.data import load_data
from netsuke.pipeline import compress
from netsuke.program import interpreter

SAMPLES = 128
SHAPE = (1, 1, 8, 8)


def small(recipe: Any, seed: int, network: Any = "models:digits_cnn") -> Any:
    """Compressed with 128 calibration images drawn by the seed, judged on the 359 test images.

    Effort "fast" measures no sensitivities, so no layer is kept in float: the claim is about the recipe, not about
    its rescue.
    """
    return quantized(recipe, load_data("digits:train").take(SAMPLES, seed), seed, network)


def quantized(recipe: Any, calib: Any, seed: int, network: Any = "models:digits_cnn") -> Any:
    """As `small`, from other inputs."""
    return compress(
        network,
        recipe=recipe,
        calib=calib,
        evaluate="digits:test",
        shape=SHAPE,
        seed=seed,
        effort="fast",
        measure=False,
    )


def top1(result: Any) -> tuple[float, float]:
    """Accuracy before and after."""
    return result.check.float_metrics["top1"], result.check.compressed_metrics["top1"]


def agreement(result: Any) -> float:
    """Share of the test images where float and compressed network answer alike."""
    return float(result.check.agreement or 0.0)


def weight_codes(result: Any) -> list[Any]:
    """Codes of every layer's weights, in graph order."""
    return [n.inputs[0].const_value.numpy() for n in result.quantized.graph if (n.name or "").endswith("/weight")]


def engine_equals_reference(program: Any, count: int = 16) -> bool:
    """Every integer value of the program on `count` test images: engine and reference interpreter, bit for bit."""
    x = next(load_data("digits:test").batches(count))[0]
    taps = [name for name, value in program.values.items() if value.dtype in ("u8", "i32")]
    feeds = {program.inputs[0].name: x}
    ours, reference = engine.load(program).run(feeds, taps=taps), interpreter.run(program, feeds, taps=taps)
    return all(np.array_equal(ours[name], reference[name]) for name in taps)
