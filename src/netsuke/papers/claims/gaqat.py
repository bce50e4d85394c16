"""GAQAT: sharpness-aware training at 4 bits over several domains, judged on one that was never seen.

Paper: the task's and the smooth gradient conflict on some quantizer steps; leaving out the task gradient of the
steadily pulled ones lifts accuracy on unseen domains. Checked: the shipped digits network at W4A4 trained on three
domains of the digits (as they are, of half contrast on a grey ground, and with noise), tested on a fourth, blurred
with noise, never trained on. Exact: conflicts of every step are logged in every window, and the frozen ones are those
of least disorder. Statistical: held-out accuracy not below plain training with the same number of epochs.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from netsuke.papers.claim import Claim, Compare, Context, Outcome, register

WINDOW, THRESHOLD = 40, 0.4


def domains(x: Any, seed: int) -> dict[str, Any]:
    """The same digits in four styles."""
    import torch
    from torch.nn import functional as F

    rng = torch.Generator().manual_seed(seed)
    blur = F.avg_pool2d(F.pad(x, (1, 1, 1, 1), mode="replicate"), 3, 1)
    return {
        "plain": x,
        "grey": 0.3 + 0.5 * x,
        "noise": (x + 0.25 * torch.randn(x.shape, generator=rng)).clamp(0, 1),
        "held_out": (0.7 * blur + 0.3 * x + 0.15 * torch.randn(x.shape, generator=rng)).clamp(0, 1),
    }


def measure(context: Context, seed: int) -> Outcome:
    """Plain training and GAQAT from the same start on the same batches."""
    import torch

    from netsuke.methods.qat.gaqat import Gaqat, apply
    from netsuke.papers.claims._digits_train import CONFIG, served, tensors, top1, trained

    x, y = tensors("train")
    seen = domains(x, seed)
    data = torch.cat([seen[n] for n in ("plain", "grey", "noise")]), torch.cat([y, y, y])
    test, labels = tensors("test")
    unseen = domains(test, seed + 100)
    figures, exact, logs = {}, {}, []

    def smooth(network: Any) -> Any:
        step = apply(network, Gaqat(window=WINDOW, threshold=THRESHOLD))
        logs.append(step.log)
        return step

    runs: dict[str, dict[str, Any]] = {"plain": {}, "gaqat": {"step": smooth}}
    for name, options in runs.items():
        network = trained(
            context,
            seed,
            data=data,
            teach=False,
            config=replace(CONFIG, epochs=5),
            method="qat/lsq",
            weight_bits=4,
            activation_bits=4,
            **options,
        )
        network.eval()
        for domain, images in unseen.items():
            figures[f"{name}_{domain}"] = top1(network, images, labels)
        exact[f"{name}: engine equals the trained network"] = served(network, test)[2]
        context.progress(f"seed {seed}: {name}: held out {figures[f'{name}_held_out']:.4f}")
    log = logs[0]
    frozen = [r for r in log if r["frozen"]]
    exact["conflicts are logged for every step and window"] = bool(log) and all(0 <= r["conflicts"] <= 1 for r in log)
    exact["frozen steps are those below the threshold"] = all(r["frozen"] == (r["disorder"] < THRESHOLD) for r in log)
    figures["conflicts"] = sum(r["conflicts"] for r in log) / len(log)
    figures["frozen_share"] = len(frozen) / len(log)
    return Outcome(exact, figures)


CLAIM = register(
    Claim(
        id="gaqat/domains",
        paper="gaqat",
        sentence="Sharpness-aware 4-bit training with frozen steps is no worse on an unseen domain than plain one.",
        baseline="qat/lsq on the same batches",
        measure=measure,
        compares=(Compare("gaqat_held_out", "plain_held_out"),),
        minutes=4,
        methods=("qat/gaqat", "qat/lsq"),
    )
)
