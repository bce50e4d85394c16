"""Zheng et al. 2024, "BinaryDM: Towards Accurate Binarization of Diffusion Model".

Paper: one-bit weights and 4-bit activations with two bases to start from and low-rank mimicking make diffusion networks
much smaller at far better sample quality than plain binarization. Checked: the shipped class-conditional U-Net for 8x8
digits as teacher and start, convolutions and attention layers at W1A4, 250 steps of 64; samples of eight steps judged
by the Frechet distance of a digit classifier's features. Exact: at the end inner layers have one basis and outer ones
two; all weights are +-1 times scales and all inputs take at most 16 levels. Statistical: the distance is below that of
plain sign binarization trained alike (`closeness` is minus the distance).
"""

from __future__ import annotations

import copy
from typing import Any

from netsuke.papers.claim import Claim, Compare, Context, Outcome, register

STEPS, BATCH, RATE, SAMPLES, CALLS, MIMICKED = 250, 64, 1e-3, 512, 8, 1e-4
KEEP = ("time.*", "stem", "head", "*.emb")
INNER = "shrink.*|down2.*|middle.*|up2.*|grow.*"
BLOCKS = ("down1", "down2", "up2", "up1")


def _plain(model: Any) -> Any:
    """Signs with the mean magnitude of a channel, the same activations."""
    from netsuke.nn.binarizer import Binarizer, MeanAbs, Sign
    from netsuke.nn.binarizer_bases import FewBits
    from netsuke.nn.binary_layers import binarize
    from netsuke.nn.surrogates import Clipped

    return binarize(
        model,
        weights=lambda _: Binarizer(Sign(Clipped()), MeanAbs("channel")),
        inputs=lambda _: FewBits(4),
        keep=KEEP,
    )


def _train(student: Any, seed: int, mimic: Any = None, teacher: Any = None) -> Any:
    import torch
    from torch.nn import functional

    from netsuke.models.train import tensors
    from netsuke.nn.binary_layers import set_progress
    from netsuke.nn.diffusion import noisy

    rng = torch.Generator().manual_seed(seed)
    x, y = tensors("digits:train", None)
    x = 2 * x - 1
    optimizer = torch.optim.AdamW(student.parameters(), lr=RATE, weight_decay=0.0)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, RATE, total_steps=STEPS)
    student.train()
    for step in range(STEPS):
        set_progress(student, step / STEPS)
        rows = torch.randint(len(x), (BATCH,), generator=rng)
        at, t, v = noisy(x[rows], rng)
        loss = functional.mse_loss(student(at, t, y[rows]), v)
        if mimic is not None:
            with torch.no_grad():
                teacher(at, t, y[rows])
            loss = loss + MIMICKED * mimic.loss()
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(student.parameters(), 1.0)
        optimizer.step()
        schedule.step()
    set_progress(student, 1.0)
    return student.eval()


def _quality(model: Any, seed: int) -> tuple[float, float]:
    """(Frechet distance, share of digits read as asked)"""
    import torch

    from netsuke.measure.samples import digit_quality
    from netsuke.nn.diffusion import sample, starts

    noise, classes = starts(SAMPLES, (1, 8, 8), seed=seed)
    with torch.no_grad():
        made = sample(model, torch.from_numpy(noise), torch.from_numpy(classes), CALLS).numpy()
    found = digit_quality(made, classes)
    return found.distance, found.accuracy


def measure(context: Context, seed: int) -> Outcome:
    """BinaryDM and plain signs, both from the float network."""
    from netsuke.methods.binarize import binarydm
    from netsuke.models import build
    from netsuke.nn.binary_layers import freeze, layers

    teacher = build("digits_unet")
    student = binarydm.apply(copy.deepcopy(teacher), binarydm.Config(inner=INNER), keep=KEEP)
    mimic = binarydm.Mimic(teacher, student, BLOCKS)
    _train(student, seed, mimic, teacher)
    mimic.close()
    freeze(student)
    bases = {name: len(layer.weight_terms()) for name, layer in layers(student)}
    outer = ("down1", "up1")
    levels = [layer.inputs.levels for _, layer in layers(student) if layer.inputs is not None]
    figures: dict[str, float] = {}
    plain = freeze(_train(_plain(copy.deepcopy(teacher)), seed))
    for name, model in (("float", teacher), ("binarydm", student), ("plain", plain)):
        figures[f"distance_{name}"], figures[f"read_{name}"] = _quality(model, seed)
        figures[f"closeness_{name}"] = -figures[f"distance_{name}"]
    context.progress(f"seed {seed}: " + ", ".join(f"{k} {v:.3f}" for k, v in figures.items() if "distance" in k))
    return Outcome(
        exact={
            "outer layers have two bases, inner ones one": all(
                count == (2 if name.startswith(outer) else 1) for name, count in bases.items()
            ),
            "weights are signs times scales": all(
                set(w.unique().tolist()) <= {-1.0, 1.0} for _, layer in layers(student) for w, _ in layer.weight_terms()
            ),
            "inputs of every such layer have at most 16 levels": len(levels) == len(bases)
            and all(rule.hi - rule.lo <= 15 for rule in levels),
        },
        figures=figures,
    )


CLAIM = register(
    Claim(
        id="binarydm/digits",
        paper="binarydm",
        sentence="Two bases that come down to one and low-rank mimicking beat plain signs at W1A4 on a digits U-Net.",
        baseline="signs with mean scales, same activations, as many steps from the same network",
        measure=measure,
        compares=(Compare("closeness_binarydm", "closeness_plain"),),
        seeds=(0,),
        minutes=4,
        methods=("binarize/binarydm",),
    )
)
