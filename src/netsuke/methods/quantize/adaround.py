"""AdaRound: learn for every weight whether it is rounded down or up, so that the layer's output is kept.

Paper: Nagel et al., "Up or Down? Adaptive Rounding for Post-Training Quantization", 2020 (arXiv 2004.10568).
Idea: the nearest code minimises the error of a weight, not of the layer's output; a few hundred unlabelled samples
say which roundings cancel each other.
Equations: w = s clip(floor(W / s) + h(V), -top, top), h(V) = clip(1.2 sigmoid(V) - 0.1, 0, 1), V starting at h =
the fraction of W / s. Minimised per layer, its fused residual and activation included: E sum_c (y_c - y'_c)^2 +
regular * sum(1 - |2 h - 1|^beta), beta falling linearly from 20 to 2, without the second term in the first fifth.
Then V >= 0 rounds up. Inputs come from the network as quantized so far, targets from the float one.
Differences: the paper takes 20,000 iterations at rate 1e-3; here 300 at 1e-2, which is what a CPU gives in minutes.
Scales stay as the plan's rule chose them. A layer whose error on the calibration data does not fall keeps nearest
rounding.
Cost: on a CIFAR ResNet-20 about 7 s a layer on one core with 512 samples and 150 iterations; activations of one
layer in memory (at most 256 MiB of each kind, samples are dropped to fit). Limits: needs torch.
"""

from __future__ import annotations

from dataclasses import dataclass

from netsuke.core.method import Method, register
from netsuke.methods.quantize._context import Context
from netsuke.methods.quantize._learned import check, require_torch
from netsuke.methods.quantize._units import layer_units


@dataclass(frozen=True)
class AdaRound:
    """Options.

    iterations, batch, rate  of Adam; `rate` is V's
    samples                  calibration samples used, at most
    regular                  weight of the term that decides between 0 and 1
    inputs                   "quantized" (by the layers in front) or "float"
    """

    iterations: int = 300
    batch: int = 32
    rate: float = 1e-2
    samples: int = 256
    regular: float = 0.01
    inputs: str = "quantized"

    def __post_init__(self) -> None:
        check("quantize/adaround", self)


def apply(context: Context, config: AdaRound) -> None:
    """Choose the codes of every quantized layer with weights."""
    require_torch("quantize/adaround")
    from netsuke.methods.quantize._reconstruct import Fit, reconstruct

    fit = Fit(
        iterations=config.iterations,
        batch=config.batch,
        rate=config.rate,
        samples=config.samples,
        regular=config.regular,
        inputs=config.inputs,
    )
    reconstruct(context, layer_units(context.placement), fit, "adaround")


METHOD = register(
    Method(
        name="quantize/adaround",
        purpose="learn which weights round down and which up, layer by layer",
        paper="gptq-status-quo",
        config=AdaRound,
        apply=apply,
        needs=("data",),
        touches=("weights",),
        exports=("qconv", "qlinear"),
        cost="a few seconds a layer, torch",
        tags=("weights", "learned"),
    )
)
