"""Whitepaper INT8: the standard 8-bit recipe.

Paper: Krishnamoorthi, "Quantizing deep convolutional networks for efficient inference: A whitepaper", 2018 (arXiv
1806.08342).
Idea: symmetric weights with one scale per output channel, affine activations with one scale per tensor, batch
normalization folded first, ranges from a calibration run, nothing trained.
Equations: s_w[c] = max|W_c| / 127; s_x = (hi - lo) / 255, z = rne(-lo / s_x); arithmetic of docs/numerics.md.
Differences: the paper calibrates with about 100 mini-batches and keeps biases as int32 of scale s_w s_x; here 256
samples and float biases added after the exact accumulation (section 4 of numerics.md). The calibrator can be
chosen; the default is the one that did best over the networks in docs/calibration.md.
Cost: one float run over the calibration data. Limits: networks with very uneven activation channels lose accuracy; see
quantize/equalization.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

from netsuke.core.errors import Problem, UsageError
from netsuke.core.method import Method, register

WEIGHT_RULES = ("maxabs", "mse")


class Defaults(Protocol):
    """What every recipe of this kind states."""

    @property
    def weights(self) -> str: ...
    @property
    def granularity(self) -> str: ...
    @property
    def samples(self) -> int: ...


def wrong_defaults(config: Defaults, where: str) -> list[Problem]:
    """What is wrong with the rule for weight scales, their granularity, the number of samples."""
    problems = []
    if config.weights not in WEIGHT_RULES:
        problems.append(Problem("weights", where, config.weights, ", ".join(WEIGHT_RULES)))
    if config.granularity not in ("channel", "tensor"):
        problems.append(Problem("granularity", where, config.granularity, "channel, tensor"))
    if config.samples < 1:
        problems.append(Problem("samples", where, str(config.samples), "at least 1"))
    return problems


@dataclass(frozen=True)
class WhitepaperInt8:
    """Defaults of the plan.

    calibrator   name of a calibrator of this room, without "quantize/"
    weights      rule for the weight scales: "maxabs" or "mse"
    granularity  of the weight scales: "channel" or "tensor"
    samples      calibration samples used, at most
    """

    calibrator: str = "mse"
    weights: str = "maxabs"
    granularity: str = "channel"
    samples: int = 256

    def __post_init__(self) -> None:
        if problems := wrong_defaults(self, "quantize/whitepaper_int8"):
            raise UsageError(problems)


def apply(config: WhitepaperInt8) -> dict[str, str | int]:
    """The plan's defaults for every layer: method, weights, granularity, bits."""
    return {
        "method": f"quantize/{config.calibrator}",
        "weights": config.weights,
        "granularity": config.granularity,
        "bits": 8,
    }


METHOD = register(
    Method(
        name="quantize/whitepaper_int8",
        purpose="8-bit weights per channel and activations per tensor, calibrated, nothing trained",
        paper="quant-whitepaper",
        config=WhitepaperInt8,
        apply=apply,
        needs=("data",),
        touches=("weights", "activations"),
        exports=("qconv", "qlinear", "qmatmul", "qadd", "qmul", "qavgpool", "qmean", "lut"),
        cost="one float run over the calibration data",
        tags=("recipe",),
    )
)
