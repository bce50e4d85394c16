"""AdaQuant: optimise each layer's weights, bias and ranges against its float output, on a tiny calibration set.

Paper: Hubara et al., "Improving Post Training Neural Quantization: Layer-wise Calibration and Integer Programming",
2020 (arXiv 2006.10518), sections 3.1 and 3.3.
Idea: a layer has few parameters beside the outputs a few images give, so it can be fitted freely without
overfitting: the weights may move as far as they like, not just to the neighbouring code.
Equations: min over W', b', activation scale and zero of E sum_c (act(W x + b) - act(Q(W') Q(x) + b'))^2, Q(W') = s
clip(round(W' / s)) with the straight-through gradient, the activation's range as scale s0 exp(t) and zero z,
rounded straight-through. The output is compared behind the fused activation. Sequential: x comes from the network
quantized so far.
Differences: W' is trained in units of its step (the paper's absolute rate 1e-5 hardly moves a code in a few hundred
iterations); weight scales stay as the plan's rule chose them, symmetric; the zero is trained only where it is not
0. Batch normalization is folded at capture, so its retuning acts on the channels' mean and deviation afterwards:
see quantize/retune. The integer program for bits is a method of its own.
Cost: a few seconds a layer of a CIFAR ResNet. Limits: needs torch; below 50 samples it can overfit.
"""

from __future__ import annotations

from dataclasses import dataclass

from netsuke.core.method import Method, register
from netsuke.methods.quantize._context import Context
from netsuke.methods.quantize._learned import check, require_torch
from netsuke.methods.quantize._units import layer_units


@dataclass(frozen=True)
class AdaQuant:
    """Options.

    iterations, batch        of Adam
    rate       of the weights, in steps of their grid
    bias       of the biases
    ranges     of the logarithm of activation scales
    zeros      of activation zeros, in codes
    samples    calibration samples used, at most
    inputs     "quantized" (by the layers in front) or "float" (all layers independent)
    """

    iterations: int = 300
    batch: int = 32
    rate: float = 3e-3
    bias: float = 1e-3
    ranges: float = 1e-3
    zeros: float = 1e-2
    samples: int = 256
    inputs: str = "quantized"

    def __post_init__(self) -> None:
        check("quantize/adaquant", self)


def apply(context: Context, config: AdaQuant) -> None:
    """Choose codes, biases and activation ranges of every quantized layer with weights."""
    require_torch("quantize/adaquant")
    from netsuke.methods.quantize._reconstruct import Fit, reconstruct

    fit = Fit(
        variable="weight",
        iterations=config.iterations,
        batch=config.batch,
        samples=config.samples,
        rate=config.rate,
        regular=0.0,
        ranges=config.ranges,
        zeros=config.zeros,
        biases=config.bias,
        inputs=config.inputs,
    )
    reconstruct(context, layer_units(context.placement), fit, "adaquant")


METHOD = register(
    Method(
        name="quantize/adaquant",
        purpose="fit each layer's weights, bias and ranges to its float output",
        paper="adaquant-ip",
        config=AdaQuant,
        apply=apply,
        needs=("data",),
        touches=("weights", "activations"),
        exports=("qconv", "qlinear"),
        cost="a few seconds a layer, torch",
        tags=("weights", "learned"),
    )
)
