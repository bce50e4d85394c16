"""Guo et al. 2024, ShiftQuant: channel groups whose scales differ by powers of two, at 4 bits of gradient.

Checked: a depthwise-separable network on the shipped digits (channel ranges differ by octaves there), 8-bit weights and
activations, gradients of 4 and of 3 bits, 8 epochs: groups against one scale a tensor. Exact: the shift inside the sum
is the sum of scaled products. Statistical: accuracy is higher by more than the spread over seeds at both widths (at 3
bits either sometimes hardly trains, so that spread is wide); at 4 bits by half a point more than that, and the final
loss and the gradient's error are smaller.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from netsuke.papers.claim import Claim, Compare, Context, Outcome, register
from netsuke.papers.claims._integer import Budget, Run, run, separable

BUDGET = Budget()
WIDTHS = {"weight_bits": 8, "activation_bits": 8, "l1_norm": False}


def shifts_are_exact(seed: int) -> bool:
    """dX of a random layer equals sum_c q[c] w[c] 2^-e[c] evaluated in float64, where it is exact."""
    import torch

    from netsuke.nn.integer_products import Window, products
    from netsuke.nn.qtensor import QTensor

    rng = np.random.default_rng(seed)
    q, w = rng.integers(-7, 8, (50, 96)), rng.integers(-7, 8, (96, 40))
    e = rng.integers(0, 4, 96)
    g = QTensor(
        torch.from_numpy((q + 7).astype(np.uint8).reshape(50, 1, 1, 96)),
        torch.ones(96),
        *(7, 0, 14),
        torch.from_numpy(e.astype(np.uint8)),
    )
    weights = QTensor(torch.from_numpy(w.astype(np.int8).reshape(96, 1, 1, 40)), torch.ones(96), 0, -7, 7)
    dx = products("kernels").input_gradient(Window(), (50, 1, 1, 40), g, weights, 2.0 ** -float(e.max()))
    return bool(np.array_equal(dx.numpy().reshape(50, 40), (q * 2.0**-e) @ w))


def measure(context: Context, seed: int) -> Outcome:
    """Groups and one scale, trained alike."""

    def trained(bits: int, gradient: str) -> Run:
        options: dict[str, Any] = {**WIDTHS, "gradient_bits": bits, "gradient": gradient}
        return run(context, f"{gradient}, {bits} bits", separable, seed, BUDGET, "integer/shiftquant", **options)

    shift, tensor = trained(4, "shift"), trained(4, "tensor")
    errors = {n: float(np.mean(r.curve("gradient_error"))) for n, r in (("groups", shift), ("tensor", tensor))}
    return Outcome(
        exact={"shifts inside the sum are exact": shifts_are_exact(seed)},
        figures={
            "top1_groups": shift.top1,
            "top1_tensor": tensor.top1,
            "top1_groups_at_3": trained(3, "shift").top1,
            "top1_tensor_at_3": trained(3, "tensor").top1,
            **{f"gradient_error_{name}": value for name, value in errors.items()},
            "loss_groups": shift.curve("loss")[-1],
            "loss_tensor": tensor.curve("loss")[-1],
        },
        curves={**shift.curves("groups"), **tensor.curves("tensor")},
    )


CLAIM = register(
    Claim(
        id="shiftquant/groups",
        paper="shiftquant",
        sentence="At 4 and 3 bits of gradient channel groups end above one scale a tensor by more than the spread.",
        baseline="one gradient scale a tensor, trained alike",
        measure=measure,
        compares=(
            Compare("top1_groups", "top1_tensor", 0.005, clear=True),
            Compare("top1_groups_at_3", "top1_tensor_at_3", clear=True),
            Compare("gradient_error_tensor", "gradient_error_groups", 0.0),
            Compare("loss_tensor", "loss_groups", 0.0),
        ),
        minutes=3,
        methods=("integer/shiftquant",),
    )
)
