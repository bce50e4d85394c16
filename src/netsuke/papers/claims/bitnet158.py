"""Nielsen and Schneider-Kamp 2024, "BitNet b1.58 Reloaded", vision: ternary weights at the width of the float network.

Paper: small vision networks with ternary weights match 16 bits at the same size. Checked: a residual CNN on the shipped
digits, 30 epochs, ternary between the first and the last layer (8 bits both), activations 8 bits, median and mean as
scale. Exact: codes are -1, 0, 1; the file holds them at no more than 1.7 bits each; the engine gives every logit of the
trained network bit for bit. Statistical: within one point of the float network trained alike, with either scale.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from netsuke.papers.claim import Claim, Compare, Context, Outcome, register
from netsuke.papers.claims._binary import SHAPE, _tensors, top1, train

EPOCHS = 30


def network(seed: int) -> Any:
    """The residual CNN of the demo, untrained."""
    from netsuke.models import build

    return build("digits_cnn", weights="random", seed=seed)


def ternary_constants(program: Any, ops: tuple[str, ...]) -> list[str]:
    """Weights of these operators that are -1, 0 and 1 only."""
    names = [node.inputs[1] for node in program.nodes if node.op in ops]
    return [n for n in names if set(np.unique(program.constants[n])) <= {-1, 0, 1}]


def bits_per_weight(program: Any, names: list[str]) -> float:
    """Of these constants in the file."""
    from netsuke.program import stored_bytes

    return float(8 * stored_bytes(program, names) / sum(program.constants[n].size for n in names))


def ternary(seed: int, scale: str) -> tuple[Any, Any]:
    """(trained network, program)"""
    from netsuke.methods.qat import prepare
    from netsuke.passes import compile_program

    options, calib = {"scale": scale}, _tensors("train")[0][:256]
    model = prepare(
        network(seed),
        shape=SHAPE,
        method="qat/bitnet158",
        options=options,
        weight_bits=2,
        activation_bits=8,
        calib=calib,
    )
    train(model, seed, epochs=EPOCHS)
    return model, compile_program(model.export(), name="ternary_digits")


def measure(context: Context, seed: int) -> Outcome:
    """The float network and both scales, trained alike."""
    import torch

    from netsuke import engine

    figures = {"top1_float": top1(train(network(seed), seed, epochs=EPOCHS))}
    exact: dict[str, bool] = {}
    x, y = _tensors("test")
    for scale in ("median", "mean"):
        model, program = ternary(seed, scale)
        names = ternary_constants(program, ("qconv", "qlinear"))
        logits = next(iter(engine.load(program).run(x.numpy()).values()))
        with torch.no_grad():
            exact[f"{scale}: the engine gives every logit of the trained network"] = bool(
                (model(x).numpy() == logits).all()
            )
        layers = sum(n.op in ("qconv", "qlinear") for n in program.nodes)
        exact[f"{scale}: all layers but the first and the last are ternary"] = len(names) == layers - 2 >= 4
        figures[f"top1_{scale}"] = float((logits.argmax(1) == y.numpy()).mean())
        figures[f"bits_{scale}"] = bits_per_weight(program, names)
        exact[f"{scale}: a weight takes at most 1.7 bits of the file"] = figures[f"bits_{scale}"] <= 1.7
        figures[f"zeros_{scale}"] = float(
            np.mean(np.concatenate([program.constants[n].reshape(-1) == 0 for n in names]))
        )
    context.progress(f"seed {seed}: " + ", ".join(f"{k} {v:.4f}" for k, v in figures.items()))
    return Outcome(exact, figures)


CLAIM = register(
    Claim(
        id="bitnet158-reloaded/digits",
        paper="bitnet158-reloaded",
        sentence="A CNN with ternary weights, 1.6 bits each in the file, is within a point of float on digits.",
        baseline="the float network, trained alike",
        measure=measure,
        compares=(Compare("top1_median", "top1_float", -0.01), Compare("top1_mean", "top1_float", -0.01)),
        minutes=4,
        methods=("qat/bitnet158",),
    )
)
