"""BitNet b1.58 Reloaded on Fashion-MNIST: ternary weights by median and by mean against float, trained alike.

Checked: a CNN of 16 and 32 channels, all 60,000 training images, `EPOCHS` epochs for each network from the same weights
in the same order, ternary between the first and the last layer (8 bits both), activations 8 bits; top-1 of the engine
on the 10,000 test images. Exact: codes are -1, 0, 1 at no more than 1.7 bits each in the file; the engine gives every
logit of the trained network, bit for bit, on 1,000 images. Statistical: within 1.5 points of float with either scale.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from netsuke.papers.claim import Claim, Compare, Context, Outcome, register

EPOCHS, BATCH, RATE, WIDTH = 4, 128, 4e-3, 16
SHAPE = (1, 1, 28, 28)


def network(seed: int) -> Any:
    """The CNN for Fashion-MNIST at half its width, without dropout (a few epochs do not overfit)."""
    import torch

    from netsuke.models.fashion import FashionCNN

    torch.manual_seed(seed)
    model = FashionCNN(WIDTH)
    for module in model.modules():
        if isinstance(module, torch.nn.Dropout):
            module.p = 0.0
    return model


def served(model: Any, test: tuple[Any, Any]) -> tuple[Any, float, bool]:
    """(program, top-1 of the engine, the engine equals the network on the first 1,000 images)"""
    import torch

    from netsuke import engine
    from netsuke.passes import compile_program

    program = compile_program(model.export(), name="ternary_fashion")
    run, (x, y) = engine.load(program), test
    logits = np.concatenate([np.asarray(run(part.numpy())) for part in x.split(100)])
    with torch.no_grad():
        emulated = torch.cat([model(part) for part in x[:1000].split(100)]).numpy()
    return program, float((logits.argmax(1) == y.numpy()).mean()), bool((logits[:1000] == emulated).all())


def measure(context: Context, seed: int) -> Outcome:
    """Float, median and mean."""
    from netsuke.methods.qat import prepare
    from netsuke.papers.claims._cifar_qat import tensors
    from netsuke.papers.claims._resumed import Trainings
    from netsuke.papers.claims.bitnet158 import bits_per_weight, ternary_constants
    from netsuke.pipeline.train import accuracy

    data, test = (tensors(f"fashion-mnist:{split}", context.data_root) for split in ("train", "test"))
    runs = Trainings(context, "bitnet158-reloaded/fashion", __name__, seed)
    settings: dict[str, Any] = {"epochs": EPOCHS, "batch": BATCH, "rate": RATE}
    figures = {"epochs": float(EPOCHS)}
    figures["top1_float"] = accuracy(runs.run("float", network(seed), data, **settings), *test)
    exact: dict[str, bool] = {}
    for scale in ("median", "mean"):
        model = prepare(
            network(seed), shape=SHAPE, method="qat/bitnet158", options={"scale": scale}, weight_bits=2,
            activation_bits=8, calib=data[0][:256],
        )  # fmt: skip
        program, figures[f"top1_{scale}"], same = served(runs.run(scale, model, data, **settings), test)
        names = ternary_constants(program, ("qconv", "qlinear"))
        figures[f"bits_{scale}"] = bits_per_weight(program, names)
        zeros = np.concatenate([program.constants[n].reshape(-1) == 0 for n in names])
        figures[f"zeros_{scale}"] = float(zeros.mean())
        exact[f"{scale}: the engine gives every logit of the trained network"] = same
        exact[f"{scale}: all layers but the first and the last are ternary"] = len(names) == 4
        exact[f"{scale}: a weight takes at most 1.7 bits of the file"] = figures[f"bits_{scale}"] <= 1.7
    context.progress(f"seed {seed}: " + ", ".join(f"{k} {v:.4f}" for k, v in figures.items()))
    runs.forget()
    return Outcome(exact, figures)


CLAIM = register(
    Claim(
        id="bitnet158-reloaded/fashion",
        paper="bitnet158-reloaded",
        sentence="A CNN with ternary weights of 1.6 bits in the file is within 1.5 points of float on Fashion-MNIST.",
        baseline="the float network, trained alike",
        measure=measure,
        compares=(Compare("top1_median", "top1_float", -0.015), Compare("top1_mean", "top1_float", -0.015)),
        seeds=(0,),
        minutes=20,
        data=("fashion-mnist",),
        methods=("qat/bitnet158",),
    )
)
