"""Uniform b-bit recipe: one width for all weights, one for all activations, nothing trained.

Paper: Krishnamoorthi, "Quantizing deep convolutional networks for efficient inference: A whitepaper", 2018 (arXiv
1806.08342), sections 2 and 3; first and last layer at 8 bits as is usual since Zhou et al., "DoReFa-Net", 2016 (arXiv
1606.06160).
Idea: the 8-bit scheme with fewer codes; below 8 bits the ranges are chosen for the least squared error, because with
few codes clipping a little costs less than a coarse step.
Equations: weights are codes in +-(2^(b_w - 1) - 1) with one scale per output channel, activations codes in
[0, 2^b_a - 1] (docs/numerics.md section 1); both ranges by the MSE search over shrunken ranges.
Differences: the paper quantizes every layer alike; here the first and the last layer keep `ends` bits (ends=0: no
exception). Layers without weights read 8 bits where no layer with arithmetic shares their input.
Cost: one float run over the calibration data and a histogram of every tensor. Limits: nothing is optimised, so below 4
bits accuracy falls by tens of points; rounding learned on data is another method.
"""

from __future__ import annotations

from dataclasses import dataclass

from netsuke.core.errors import Problem, UsageError
from netsuke.core.method import Method, register
from netsuke.core.recipe import BITS
from netsuke.methods.quantize.whitepaper_int8 import wrong_defaults


@dataclass(frozen=True)
class Uniform:
    """Defaults of the plan.

    weight_bits, activation_bits  2 to 8
    ends         bits of weights and activations of the first and the last layer; 0: as all others
    calibrator   name of a calibrator of this room, without "quantize/"
    weights      rule for the weight scales: "maxabs" or "mse"
    granularity  of the weight scales: "channel" or "tensor"
    samples      calibration samples used, at most
    """

    weight_bits: int = 4
    activation_bits: int = 8
    ends: int = 8
    calibrator: str = "mse"
    weights: str = "mse"
    granularity: str = "channel"
    samples: int = 256

    def __post_init__(self) -> None:
        where, problems = "quantize/uniform", []
        for key in ("weight_bits", "activation_bits", "ends"):
            value = getattr(self, key)
            if value not in BITS and not (key == "ends" and value == 0):
                problems.append(Problem(key, where, str(value), "2 to 8" + (", or 0" if key == "ends" else "")))
        problems += wrong_defaults(self, where)
        if problems:
            raise UsageError(problems)


def apply(config: Uniform) -> dict[str, str | int]:
    """The plan's defaults for every layer: method, weights, granularity, bits, weight_bits, ends."""
    return {
        "method": f"quantize/{config.calibrator}",
        "weights": config.weights,
        "granularity": config.granularity,
        "bits": config.activation_bits,
        "weight_bits": config.weight_bits,
        "ends": config.ends,
    }


METHOD = register(
    Method(
        name="quantize/uniform",
        purpose="weights and activations of 2 to 8 bits, the same for every layer between the ends",
        paper="quant-whitepaper",
        config=Uniform,
        apply=apply,
        needs=("data",),
        touches=("weights", "activations"),
        exports=("qconv", "qlinear", "qmatmul", "qadd", "qmul", "qavgpool", "qmean", "lut"),
        cost="one float run over the calibration data and a histogram of every tensor",
        tags=("recipe",),
    )
)
