"""Guo et al. 2024, ShiftQuant on CIFAR-10: ResNet-20 from scratch in 8, 6 and 4 bits.

Paper: 4-bit ResNets lose 0.92 points on ImageNet. Checked: 20,000 training images, 6 epochs for every variant from the
same weights in the same order, batch normalization, stem and classifier float; judged on the lossless test images. At
4 bits also one gradient scale a tensor. An interrupted training is resumed from its last epoch. The three claims share
the float training of a seed: its last checkpoint stays in the cache, named by the version that trained it.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from netsuke.papers.claim import Claim, Compare, Context, Outcome, register

EPOCHS, BATCH, RATE = 6, 128, 0.2
MARGINS = {8: 0.005, 6: 0.01, 4: 0.025}


def _checkpoint(name: str, seed: int) -> Path:
    import netsuke
    from netsuke.papers.runner import state_folder

    return state_folder() / f"shiftquant--cifar-{name.replace(' ', '-')}-{seed}-{netsuke.__version__}.pt"


def _train(context: Context, data: dict[str, Any], name: str, seed: int, **options: Any) -> Any:
    """A trained network's history; options empty: float."""
    import torch

    import netsuke
    from netsuke import models
    from netsuke.methods.qat import flip_and_shift

    path = _checkpoint(name, seed)
    path.parent.mkdir(parents=True, exist_ok=True)
    result = netsuke.train(
        models.build("resnet20", weights="random", seed=seed),
        data["train"],
        method="integer/shiftquant" if options else "",
        options={"keep_float": "conv1|linear", "l1_norm": False, **options} if options else None,
        epochs=EPOCHS,
        batch=BATCH,
        optimizer=lambda p: torch.optim.SGD(p, lr=RATE, momentum=0.9, weight_decay=5e-4),
        schedule=lambda o, steps: torch.optim.lr_scheduler.OneCycleLR(o, RATE, total_steps=steps),
        augment=flip_and_shift,
        evaluate=data["test"],
        checkpoint=path,
        seed=seed,
        progress=False,
    )
    context.progress(f"seed {seed}: {name}: {result.summary()}")
    return result.history


def measure(context: Context, seed: int, bits: int) -> Outcome:
    """Float, channel groups, and at 4 bits one scale a tensor."""
    from netsuke.papers.claims._cifar_qat import tensors

    data = {split: tensors(f"cifar10:{split}", context.data_root) for split in ("train", "test")}
    widths = {"weight_bits": bits, "activation_bits": bits, "gradient_bits": bits}
    runs = {"float": _train(context, data, "float", seed)}
    runs["groups"] = _train(context, data, f"{bits} bits", seed, **widths)
    if bits == 4:
        runs["tensor"] = _train(context, data, "4 bits one scale", seed, gradient="tensor", **widths)
    for name in (f"{bits} bits", "4 bits one scale"):
        _checkpoint(name, seed).unlink(missing_ok=True)
    kept = ("loss", "accuracy", "gradient_error", "input_ends")
    return Outcome(
        figures={f"top1_{name}": rows[-1]["accuracy"] for name, rows in runs.items()},
        curves={
            f"{name} {what}": [row[what] for row in rows]
            for name, rows in runs.items()
            for what in kept
            if what in rows[0]
        },
    )


def _measured(bits: int) -> Callable[[Context, int], Outcome]:
    def of(context: Context, seed: int) -> Outcome:
        return measure(context, seed, bits)

    return of


for _bits, _margin in MARGINS.items():
    register(
        Claim(
            id=f"shiftquant/cifar-{_bits}",
            paper="shiftquant",
            sentence=f"ResNet-20 on CIFAR-10 in {_bits}-bit integers ends within {100 * _margin:g} points of float.",
            baseline="float32 training, equal epochs" + ("; one gradient scale a tensor" if _bits == 4 else ""),
            measure=_measured(_bits),
            compares=(
                Compare("top1_groups", "top1_float", -_margin),
                *([Compare("top1_groups", "top1_tensor", clear=True)] if _bits == 4 else []),
            ),
            minutes=30,
            data=("cifar10",),
            methods=("integer/shiftquant",),
        )
    )
