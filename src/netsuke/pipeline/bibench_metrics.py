"""BiBench's six overall metrics: quadratic means of ratios between a binary network and the float one.

Source: BiBench, Qin et al. 2023 (arXiv 2301.11233). A quadratic mean, so that one collapse cannot hide behind averages.
All ratios are binary over float for scores, float over binary for costs: higher is better.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

FLOOR = 0.005  # losses and deviations below half a point are noise of a few hundred test samples: they count as this


def mean(values: Sequence[float]) -> float:
    return sum(values) / len(values)


def quadratic(values: Sequence[float]) -> float:
    """sqrt of the mean square."""
    return math.sqrt(mean([v * v for v in values]))


def tasks(ratios: Mapping[str, Sequence[float]]) -> float:
    """OM_task: per task the mean of score ratios, then the quadratic mean over tasks. Architectures alike."""
    return quadratic([mean(values) for values in ratios.values()])


def robustness(lost_float: Mapping[str, float], lost_binary: Mapping[str, float]) -> float:
    """OM_rob: score lost to each corruption by the float network over that lost by the binary one."""
    return quadratic([max(lost_float[c], FLOOR) / max(lost_binary[c], FLOOR) for c in lost_float])


def training(seconds: tuple[float, float], deviations: tuple[float, float]) -> float:
    """OM_train: (float, binary) seconds of training, (float, binary) deviation of the score over hyper-parameters."""
    spread = max(deviations[0], FLOOR) / max(deviations[1], FLOOR)
    return quadratic([seconds[0] / seconds[1], spread])


def complexity(operations: tuple[float, float], size: tuple[float, float]) -> float:
    """OM_comp: (float, binary) operations and bytes as counted on paper."""
    return quadratic([operations[0] / operations[1], size[0] / size[1]])


def inference(milliseconds: Mapping[str, tuple[float, float]], size: tuple[float, float]) -> float:
    """OM_inf: measured (float, binary) milliseconds on each instruction set, and bytes of the compiled files."""
    return quadratic([mean([before / after for before, after in milliseconds.values()]), size[0] / size[1]])


def operations_per_product(weight_bits: float, input_bits: float) -> float:
    """Float operations that one multiply-add counts as: 1/64 for one bit by one bit, 1 from 64 bit products on."""
    return min(1.0, weight_bits * input_bits / 64)
