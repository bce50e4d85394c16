"""FLIQS: one training chooses an integer or float format per layer, meets its target, and needs no retraining.

Paper: one-shot search over integer and float formats beats earlier searches at equal cost.
Checked: the shipped digits network, formats int2, int4, E2M1 and int8 for the layers between its ends, a target of 4
bits a weight, one training of 20 epochs; beside it the same training with 4-bit integers everywhere, and with a
random assignment of the same mean bits. Exact: the engine gives every output of the network as it came out of the
search; the policy has settled (entropy below a tenth of its start). Statistical: mean bits within 12 % of the target;
accuracy not below uniform 4 bits by more than 0.5 points, and not below the random assignment.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from netsuke.papers.claim import Claim, Compare, Context, Outcome, register

FORMATS = "int2+int4+e2m1+int8"
TARGET = 4.0


class Fixed:
    """A step that trains with one assignment of formats."""

    def __init__(self, search: Any, choice: Any) -> None:
        self.search, self.choice = search, choice

    def __call__(self, network: Any, x: Any, y: Any, loss: Any, optimizer: Any) -> float:
        from netsuke.methods.qat import plain_step

        self.search._set(self.choice)
        return plain_step(network, x, y, loss, optimizer)


def random_choice(search: Any, seed: int) -> Any:
    """Of 2,000 random assignments one whose mean bits are nearest to the target."""
    import torch

    rng = torch.Generator().manual_seed(seed)
    drawn = torch.randint(0, len(search.names), (2000, len(search.layers)), generator=rng)
    near = [c for c in drawn if abs(search.mean_bits(c) - TARGET) < 0.4]
    return near[0] if near else min(drawn, key=lambda c: abs(search.mean_bits(c) - TARGET))


def measure(context: Context, seed: int) -> Outcome:
    """Three trainings from the same start."""
    import torch

    from netsuke.methods.qat.fliqs import Fliqs, apply
    from netsuke.papers.claims._digits_train import CONFIG, served, tensors, trained

    x, y = tensors("test")
    config = replace(CONFIG, epochs=20)
    options = Fliqs(FORMATS, target=TARGET, delay=60, steps=380, seed=seed)
    kept: dict[str, Any] = {}

    def searching(network: Any) -> Any:
        kept["search"] = apply(network, options)
        return kept["search"]

    def uniform(network: Any) -> Any:
        search = apply(network, options)
        return Fixed(search, torch.full((len(search.layers),), search.names.index("int4")))

    def drawn(network: Any) -> Any:
        search = apply(network, options)
        return Fixed(search, random_choice(search, seed))

    figures, exact = {}, {}
    for name, step in {"fliqs": searching, "uniform4": uniform, "random": drawn}.items():
        network = trained(context, seed, config=config, step=step, method="qat/ste", weight_bits=8, activation_bits=8)
        if name == "fliqs":
            context.progress(f"seed {seed}: {kept['search'].finish()}")
        _, out, same = served(network, x)
        figures[f"top1_{name}"] = float((out.argmax(1) == y).float().mean())
        exact[f"{name}: engine equals the trained network"] = same
        context.progress(f"seed {seed}: {name}: {figures[f'top1_{name}']:.4f}")
    search = kept["search"]
    choice = search.logits.detach().argmax(1)
    figures["mean_bits"] = search.mean_bits(choice)
    figures["miss_of_target"] = -abs(figures["mean_bits"] / TARGET - 1)
    figures["floats_chosen"] = float(sum(f.startswith("e") for f in search.formats().values()))
    exact["the policy has settled"] = search.log[-1]["entropy"] < 0.1 * search.log[0]["entropy"]
    return Outcome(exact, figures)


CLAIM = register(
    Claim(
        id="fliqs/digits",
        paper="fliqs",
        sentence="One training finds formats at the target size that are as accurate as 4 bits everywhere.",
        baseline="int4 everywhere; a random assignment of the same size",
        measure=measure,
        compares=(
            Compare("miss_of_target", "", -0.12),
            Compare("top1_fliqs", "top1_uniform4", -0.005),
            Compare("top1_fliqs", "top1_random"),
        ),
        seeds=(0, 1),
        minutes=4,
        methods=("qat/fliqs", "qat/ste"),
    )
)
