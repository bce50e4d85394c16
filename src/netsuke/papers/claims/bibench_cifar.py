"""One-bit ResNet-20 on CIFAR-10: ReSTE, BiPer and ReActNet beside plain signs with clipped gradients.

The papers report 87.9 % (ReSTE, shortcuts around every convolution) and 87.0 % (BiPer) for ResNet-20 at one bit after
600 to 1,000 epochs on 50,000 images. Checked: 20,000 training images, `EPOCHS` epochs for each of four binarizers on
the same network from the same weights in the same order (BiPer: two thirds of them in its first stage); top-1 of the
engine on the 1,000 lossless test images, and on the 10,000 JPEG ones where they are. Exact: every 3x3 convolution
behind the stem runs at one bit; the engine gives the label of the trained network on 98 of 100 test images at least
(float layers around the one-bit ones may round differently at a threshold). Statistical: each within a point of plain
signs or above.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from netsuke.papers.claim import Claim, Compare, Context, Outcome, register

EPOCHS, BATCH, RATE, TAU = 3, 128, 4e-3, 0.037
METHODS = ("bnn", "reste", "biper", "reactnet")


def network(seed: int) -> Any:
    """ResNet-20 in Bi-Real's order: normalize, convolve, shortcut around every convolution."""
    import torch

    from netsuke.papers.claims._binary_resnet import BinaryResNet20

    torch.manual_seed(seed)
    return BinaryResNet20()


def trained(name: str, model: Any, runs: Any, data: tuple[Any, Any], seed: int) -> Any:
    """The network binarized by a method and trained; BiPer in its two stages."""
    from netsuke.core.method import find
    from netsuke.methods.binarize import biper

    settings: dict[str, Any] = {"batch": BATCH, "augment": _augment}
    method = find(f"binarize/{name}")
    if name != "biper":
        model = method.apply(model, method.config())
        return runs.run(name, model, data, epochs=EPOCHS, rate=RATE, **settings)
    model = biper.apply(model, biper.Config(stage=1, seed=seed))
    settings["loss"] = _with_penalty(model)
    first = EPOCHS * 2 // 3
    model = runs.run("biper stage 1", model, data, epochs=first, rate=RATE, **settings)
    model = biper.second_stage(model)
    return runs.run("biper stage 2", model, data, epochs=EPOCHS - first, rate=RATE / 4, **settings)


def _augment(x: Any, rng: Any) -> Any:
    """Flips and shifts, channels last: a step takes a seventh less time in that order."""
    import torch

    from netsuke.methods.qat import flip_and_shift

    return flip_and_shift(x, rng).contiguous(memory_format=torch.channels_last)


def _with_penalty(model: Any) -> Any:
    from torch.nn import functional

    from netsuke.methods.binarize import biper

    return lambda logits, y: functional.cross_entropy(logits, y) + TAU * biper.regularizer(model)


def served(model: Any, x: Any) -> tuple[Any, float, int]:
    """(engine, agreement with the trained network on x, one-bit layers)"""
    import torch

    from netsuke import engine
    from netsuke.capture import capture
    from netsuke.passes import compile_program

    program = compile_program(capture(model, shape=(1, *x.shape[1:])), name="binary_resnet20")
    run = engine.load(program)
    with torch.no_grad():
        agreed = float(np.mean([(labels(run, a) == model(a).argmax(1).numpy()).mean() for a in x.split(100)]))
    return run, agreed, sum(node.op == "bconv" for node in program.nodes)


def labels(run: Any, x: Any) -> Any:
    return np.concatenate([np.asarray(run(part.numpy())).argmax(1) for part in x.split(100)])


def measure(context: Context, seed: int) -> Outcome:
    """Four binarizers, trained alike."""
    from netsuke.nn.binary_layers import freeze
    from netsuke.papers.claims._cifar_qat import tensors
    from netsuke.papers.claims._resumed import Trainings

    data, test = (tensors(f"cifar10:{split}", context.data_root) for split in ("train", "test"))
    jpeg = _jpeg(context)
    runs = Trainings(context, "bibench/cifar", __name__, seed)
    exact: dict[str, bool] = {}
    figures: dict[str, float] = {"epochs": float(EPOCHS)}
    for name in METHODS:
        model = freeze(trained(name, network(seed), runs, data, seed))
        run, agreed, count = served(model, test[0])
        figures |= {
            f"agreement_{name}": agreed,
            f"top1_{name}": float((labels(run, test[0]) == test[1].numpy()).mean()),
        }
        if jpeg is not None:
            figures[f"top1_jpeg_{name}"] = float((labels(run, jpeg[0]) == jpeg[1].numpy()).mean())
        context.progress(f"seed {seed}: {name}: top-1 {figures[f'top1_{name}']:.3f}, agreement {agreed:.3f}")
        exact[f"{name}: 18 one-bit layers"] = count == 18
        exact[f"{name}: the engine gives the trained network's labels"] = agreed >= 0.98
    runs.forget()
    return Outcome(exact, figures)


def _jpeg(context: Context) -> tuple[Any, Any] | None:
    from netsuke.core.errors import FileError
    from netsuke.papers.claims._cifar_qat import tensors

    try:
        return tensors("cifar10:test-jpeg", context.data_root)
    except FileError:
        context.progress("no test_10k_jpeg.npz: judged on the 1,000 lossless images alone")
        return None


CLAIM = register(
    Claim(
        id="bibench/cifar",
        paper="bibench",
        sentence="On CIFAR-10, ReSTE, BiPer and ReActNet at one bit are no worse than plain signs.",
        baseline="signs with clipped gradients, the same network and epochs",
        measure=measure,
        compares=tuple(Compare(f"top1_{name}", "top1_bnn", -0.01) for name in METHODS[1:]),
        seeds=(0,),
        minutes=30,
        data=("cifar10",),
        methods=tuple(f"binarize/{name}" for name in METHODS),
    )
)
