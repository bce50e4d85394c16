"""Post-training quantization of a CIFAR-10 ResNet-20 to 4-bit weights, with 8- and 4-bit activations.

Checked: public trained weights, 512 unlabelled training images, first and last layer at 8 bits, judged by the
engine on the 1,000 lossless test images. Statistical: at W4A8 the best post-training recipe stays within 0.7 points
of float, at W4A4 within 2.5; block-wise learned rounding beats nearest rounding with bias correction at W4A4.
"""

from __future__ import annotations

from netsuke.papers.claim import Claim, Compare, Context, Outcome, register
from netsuke.papers.claims import _cifar

W4A8 = "quantize/uniform:weight_bits=4,activation_bits=8,samples=512"
W4A4 = "quantize/uniform:weight_bits=4,activation_bits=4,samples=512"
RECIPES = {
    "w4a8_nearest": [W4A8, "quantize/bias_correction"],
    "w4a8_gptq": [W4A8, "quantize/gptq"],
    "w4a4_nearest": [W4A4, "quantize/bias_correction"],
    "w4a4_brecq": [W4A4, "quantize/brecq:iterations=200"],
}


def measure(context: Context, seed: int) -> Outcome:
    """Four recipes from the same calibration images."""
    figures: dict[str, float] = {}
    net = _cifar.network(context)
    for name, recipe in RECIPES.items():
        result = _cifar.small(context, net, recipe, seed)
        figures["top1_float"], figures[f"top1_{name}"] = _cifar.top1(result)
        figures[f"agreement_{name}"] = float(result.check.agreement or 0.0)
    return Outcome({}, figures)


CLAIM = register(
    Claim(
        id="gptq-status-quo/cifar",
        paper="gptq-status-quo",
        sentence="ResNet-20 keeps its accuracy within 0.7 points at W4A8 and 2.5 at W4A4 without training.",
        baseline="float; nearest rounding with bias correction",
        measure=measure,
        compares=(
            Compare("top1_w4a8_gptq", "top1_float", -0.007),
            Compare("top1_w4a4_brecq", "top1_float", -0.025),
            Compare("top1_w4a4_brecq", "top1_w4a4_nearest", 0.005),
        ),
        minutes=20,
        data=("cifar10",),
        methods=("quantize/gptq", "quantize/brecq", "quantize/uniform"),
    )
)
