"""Das et al. 2018, "Mixed Precision Training of Convolutional Neural Networks using Integer Operations".

Paper: INT16 operands with one exponent a tensor and INT32 sums train ImageNet networks like float32. Checked: the
residual network of the demo on the shipped digits, 8 epochs. Exact: no INT32 sum can leave its range with the operands
of a real training step, some of which had to be shifted for it; the forward product is within one part in 2^20 of the
exact sum. Statistical: accuracy within 1 point of float, and the loss curve no further from float's than float's own
with the images in another order.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from netsuke.papers.claim import Claim, Compare, Context, Outcome, register
from netsuke.papers.claims._integer import Budget, backward, resnet, run

BUDGET = Budget()
INT32 = 2**31 - 1


def _operands(model: Any) -> list[tuple[Any, Any, Any, Any]]:
    """(layer, input, weights, gradient) of every layer on one batch."""
    from netsuke.nn.integer_probe import Probe
    from netsuke.nn.integer_swap import integer_layers

    inputs: dict[str, Any] = {}
    gradients: dict[str, Any] = {}

    class Keep(Probe):
        def inputs(self, where: str, q: Any) -> None:
            inputs[where] = q

        def gradient(self, where: str, g: Any, q: Any, octaves: Any = None) -> None:  # noqa: ARG002  the base class has them
            gradients[where] = q

    layers = integer_layers(model)
    for layer in layers.values():
        layer.probe = Keep()
    backward(model)
    for layer in layers.values():
        layer.probe = None
    return [(layer, inputs[n], layer.quantize_weight(layer.weight), gradients[n]) for n, layer in layers.items()]


def _overflow(operands: list[tuple[Any, Any, Any, Any]]) -> tuple[bool, float]:
    """Whether `chain` pairs of every product fit INT32, and the share of operands that were shifted for it."""
    fits, shifted = [], []
    for layer, x, w, g in operands:
        pairs = 2 * layer.config.chain
        tops = [int(np.abs(q.codes.numpy().astype(np.int64)).max()) for q in (x, w, g)]
        fits += [pairs * a * b <= INT32 for a, b in ((tops[0], tops[1]), (tops[2], tops[1]), (tops[0], tops[2]))]
        shifted += [top < 2 ** (layer.config.weight_bits - 2) for top in tops]
    return all(fits), float(np.mean(shifted))


def _close(operands: list[tuple[Any, Any, Any, Any]]) -> bool:
    """The kernel's forward sums of every layer against int64 sums, relative to the sum of magnitudes."""
    import torch
    from torch.nn import functional

    from netsuke.nn.integer_products import products

    held = []
    for layer, x, w, _ in operands:
        ours = products("kernels").forward(layer.window, x, w, torch.ones(len(w.codes)), None)
        planes, rows = (q.codes.double().permute(0, 3, 1, 2) for q in (x, w))
        settings = (layer.window.stride, layer.window.padding, layer.window.dilation, layer.window.groups)
        exact = functional.conv2d(planes, rows, None, *settings).permute(0, 2, 3, 1)
        bound = functional.conv2d(planes.abs(), rows.abs(), None, *settings).permute(0, 2, 3, 1)
        held.append(bool(((ours.double() - exact).abs() <= bound * 2.0**-20).all()))
    return all(held)


def measure(context: Context, seed: int) -> Outcome:
    """Float, float with another order of images, and INT16."""
    plain = run(context, "float", resnet, seed, BUDGET)
    other = run(context, "float, other order", resnet, seed, BUDGET, order=seed + 100)
    fixed = run(context, "INT16", resnet, seed, BUDGET, "integer/dfp_int16")
    base = np.log(plain.curve("loss"))
    operands = _operands(fixed.model)
    fits, shifted = _overflow(operands)
    return Outcome(
        exact={
            "no INT32 sum can overflow": fits,
            "operands that would have overflowed were found and shifted": shifted > 0,
            "forward sums are within 2^-20 of the exact ones": _close(operands),
        },
        figures={
            "top1": fixed.top1,
            "top1_float": plain.top1,
            "loss_distance": float(np.abs(np.log(fixed.curve("loss")) - base).mean()),
            "loss_noise": float(np.abs(np.log(other.curve("loss")) - base).mean()),
            "shifted_operands": shifted,
        },
        curves={**fixed.curves("INT16"), **plain.curves("float"), **other.curves("float, other order")},
    )


CLAIM = register(
    Claim(
        id="dfp-int16-training/digits",
        paper="dfp-int16-training",
        sentence="INT16 training follows float's loss curve within the noise of the order of images.",
        baseline="float32 training, equal budget, and its own spread over the order of images",
        measure=measure,
        compares=(Compare("top1", "top1_float", -0.01), Compare("loss_noise", "loss_distance", 0.0)),
        minutes=1,
        methods=("integer/dfp_int16",),
    )
)
