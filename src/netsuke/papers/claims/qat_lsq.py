"""Esser et al. 2020, "Learned Step Size Quantization", on CIFAR-10: W4A4, W3A3 and W2A2.

Paper: networks trained with learned steps reach the accuracy of float at 4 and 3 bits and lose little at 2 (ResNet-18
on ImageNet, 70.5 in float: 71.1, 70.2, 67.6; from memory). Checked: the public ResNet-20 (91.5 % on the 1,000 lossless
test images), trained for 3, 4 or 12 epochs of 20,000 training images from the float weights with the float network as
teacher, measured in the engine. First and last layer 8 bits; at 2 bits the residual stream too (the paper leaves it in
float). Exact: the engine gives every logit of the network that was trained.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from netsuke.papers.claim import Claim, Compare, Context, Outcome, register

EPOCHS = {4: 3, 3: 4, 2: 12}  # at most 15 minutes a seed on two cores
MINUTES = {4: 30, 3: 30, 2: 45}


def measure(bits: int) -> Callable[[Context, int], Outcome]:
    """The claim's program at that many bits."""

    def run(context: Context, seed: int) -> Outcome:
        from dataclasses import replace

        from netsuke.papers.claims._cifar_qat import CONFIG, measured, trained  # torch, only when it runs

        config = replace(CONFIG, epochs=EPOCHS[bits])
        widths: dict[str, Any] = {"weight_bits": bits, "activation_bits": bits, "stream_bits": 8 if bits == 2 else None}
        network, model = trained(context, seed, config=config, method="qat/lsq", **widths)
        return measured(network, model, context.data_root)

    return run


def _claim(bits: int, points: float) -> Claim:
    return Claim(
        id=f"quant-whitepaper/lsq-w{bits}a{bits}",
        paper="quant-whitepaper",
        sentence=f"ResNet-20 trained with learned steps at {bits} bits loses at most {points:g} points on CIFAR-10.",
        baseline="the float network on the same 1,000 test images",
        measure=measure(bits),
        compares=(Compare("top1", "top1_float", -points / 100),),
        minutes=MINUTES[bits],
        data=("cifar10",),
        methods=("qat/lsq",),
    )


CLAIMS = tuple(register(_claim(bits, points)) for bits, points in ((4, 1.0), (3, 2.0), (2, 4.5)))
