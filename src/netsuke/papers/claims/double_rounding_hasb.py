"""Double Rounding's HASB against evenly drawn widths: does the curvature of the loss help mixes of widths?

Paper: mixes of widths drawn by the Hessian's traces make a better network of mixed precision (3 bits on average,
ResNet-18) than drawing evenly. Checked: the shipped digits network, as many epochs with the highest width, a mix and
the lowest a batch, the mix drawn by HASB or evenly, all else equal; then mixes of 2.5, 3 and 4 bits on average,
chosen by the integer program from the same traces, each with norm statistics of its own. Exact: the engine gives
every output of every mix. Statistical, means over the three mixes: HASB no worse than even draws in accuracy (the 360
test digits tell apart some tenths of a point, so the cross-entropy is the finer one) and in cross-entropy.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from netsuke.papers.claim import Claim, Compare, Context, Outcome, register

BITS, MEANS = (8, 6, 4, 3, 2), (2.5, 3.0, 4.0)


def _trained(model: Any, x: Any, y: Any, seed: int, *, even: bool) -> tuple[Any, dict[str, float]]:
    """The views of a network trained on mixes, and the traces of the float one."""
    from netsuke.methods.qat import Samples, prepare
    from netsuke.methods.qat._hasb import Hasb, traces
    from netsuke.methods.qat._training import train
    from netsuke.methods.qat.double_rounding import DoubleRounding, Views
    from netsuke.papers.claims._digits_train import CONFIG, SHAPE

    network = prepare(model, shape=SHAPE, method="qat/double_rounding", weight_bits=8, activation_bits=8, calib=x[:256])
    steps = CONFIG.epochs * (len(x) // CONFIG.batch)
    views = Views(network, BITS, DoubleRounding(hasb_steps=steps))
    views.calibrate(x[:256])
    found = traces(network, x[:1000], y[:1000], seed=seed)
    views.hasb = Hasb(views, None if even else found, steps, seed)
    config = replace(CONFIG, seed=seed, freeze=1.0)
    train(network, Samples(x, y), teacher=model, config=config, step=views.step)
    views.settle(x)
    return views, found


def measure(context: Context, seed: int) -> Outcome:
    """Both ways to draw, judged on the same budgets."""
    import torch
    from torch.nn import functional

    from netsuke.methods.qat._hasb import choose
    from netsuke.models import build
    from netsuke.papers.claims._digits_train import served, tensors, top1

    torch.set_num_threads(1)
    (x, y), (test, labels), model = tensors("train"), tensors("test"), build("digits_cnn")
    figures, exact = {"top1_float": top1(model.eval(), test, labels)}, dict[str, bool]()
    for name in ("hasb", "even"):
        views, found = _trained(model, x, y, seed, even=name == "even")
        right, lost = [], []
        for mean in MEANS:
            views.settle_mix(choose(views, found, mean), x)
            _, out, equal = served(views.network, test)
            exact[f"{name}, {mean:g} bits: engine equals the mix"] = equal
            right.append(float((out.argmax(1) == labels).float().mean()))
            lost.append(float(functional.cross_entropy(out, labels)))
            figures |= {f"top1_{name}_{mean:g}": right[-1], f"nll_{name}_{mean:g}": lost[-1]}
        for bits in (BITS[0], BITS[-1]):
            views.switch(bits)
            figures[f"top1_{name}_view{bits}"] = top1(views.network.eval(), test, labels)
        figures |= {f"top1_{name}": sum(right) / len(right), f"nll_{name}": sum(lost) / len(lost)}
        context.progress(f"seed {seed}: {name}: top-1 {figures[f'top1_{name}']:.4f}, nll {figures[f'nll_{name}']:.4f}")
    return Outcome(exact, figures)


CLAIM = register(
    Claim(
        id="double-rounding/hasb",
        paper="double-rounding",
        sentence="Mixes of widths drawn by Hessian traces serve mixed precision no worse than mixes drawn evenly.",
        baseline="every layer draws its width evenly, all else equal",
        measure=measure,
        compares=(Compare("top1_hasb", "top1_even"), Compare("nll_even", "nll_hasb")),
        seeds=(0, 1, 2),
        minutes=4,
        methods=("qat/double_rounding",),
    )
)
