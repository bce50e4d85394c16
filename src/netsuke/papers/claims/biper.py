"""Vargas et al. 2024, "Binary Neural Networks using a Periodic Function".

Paper: sign(sin(w0 w)) forward with the sine backward, in two stages, gains up to 1 point on CIFAR-10. Checked: a small
residual CNN on the shipped digits, both stages, 30 epochs each. Exact: the quantization error falls with the
frequency and ends at 1 - 2/pi, the gradient is w0 cos(w0 w), the compiled network runs one-bit layers and gives
the label of the trained one on every test image. Statistical: above 95 %; no further below plain clipped signs than
one point.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from netsuke.papers.claim import Claim, Compare, Context, Outcome, register
from netsuke.papers.claims._binary import answers, compiled, engine_answers, network, top1, train

FREQUENCY, TAU = 20.0, 0.001


def _exact_rules(seed: int) -> dict[str, bool]:
    import torch
    from torch import nn

    from netsuke.methods.binarize import biper
    from netsuke.nn.binary_layers import BinaryLayer

    w = 0.1 * torch.randn(100_000, generator=torch.Generator().manual_seed(seed))
    errors = [biper.quantization_error(w, f) for f in (0.1, 1, 5, 10, 100)]
    layer = next(biper.apply(nn.Sequential(nn.Linear(50, 20)), biper.Config(FREQUENCY), keep=()).children())
    assert isinstance(layer, BinaryLayer)
    layer.weights.terms(layer.weight)[0][0].sum().backward()
    slope = FREQUENCY * torch.cos(FREQUENCY * layer.weight.detach())
    return {
        "the frequency lowers the quantization error to 1 - 2/pi": errors[:4] == sorted(errors[:4], reverse=True)
        and abs(errors[-1] - (1 - 2 / np.pi)) < 0.01,
        "gradients follow the sine": layer.weight.grad is not None and bool(torch.allclose(layer.weight.grad, slope)),
    }


def measure(context: Context, seed: int) -> Outcome:
    """Two stages of BiPer, and a network of clipped signs with as many epochs in all."""
    from netsuke.methods.binarize import biper, bnn
    from netsuke.nn.binary_layers import freeze

    def penalty(model: Any) -> Any:
        return lambda: TAU * biper.regularizer(model)

    model = biper.apply(network(seed), biper.Config(FREQUENCY, stage=1, seed=seed))
    train(model, seed, penalty=penalty(model))
    first = top1(model)
    train(biper.second_stage(model), seed + 1, rate=1e-3, penalty=penalty(model))
    freeze(model)
    given, true = answers(model)
    program = compiled(model)
    plain = train(bnn.apply(network(seed), bnn.Config()), seed, epochs=60)
    context.progress(f"seed {seed}: stage 1 {first:.4f}, stage 2 {float((given == true).mean()):.4f}")
    return Outcome(
        exact={
            **_exact_rules(seed),
            "every binarized layer runs at one bit": sum(n.op == "bconv" for n in program.nodes) == 4,
            "the engine gives the label of the trained network on every test image": bool(
                np.array_equal(engine_answers(program), given)
            ),
        },
        figures={
            "top1": float((given == true).mean()),
            "top1_stage1": first,
            "top1_clipped_signs": top1(plain),
        },
    )


CLAIM = register(
    Claim(
        id="biper/digits",
        paper="biper",
        sentence="A periodic binarizer trains a one-bit CNN on digits above 95 %, and the engine serves it.",
        baseline="signs with clipped gradients, as many epochs",
        measure=measure,
        compares=(Compare("top1", "", 0.95), Compare("top1", "top1_clipped_signs", -0.01)),
        minutes=6,
        methods=("binarize/biper", "binarize/bnn"),
    )
)
