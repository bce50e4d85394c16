"""Wu et al. 2023, "Estimator Meets Equilibrium Perspective" (ReSTE).

Paper: a power-function estimator trades the error of the estimate against the stability of gradients and beats
estimators without auxiliary modules on CIFAR-10 and ImageNet. Checked: a small residual CNN on the shipped digits, 30
epochs. Exact: with a larger final exponent the estimating error falls and the gradients' instability rises, both
measured on the same network and batch; the compiled network runs one-bit layers and gives the label of the trained one
on every test image. Statistical: no further below plain clipped signs than half a point.
"""

from __future__ import annotations

import numpy as np

from netsuke.papers.claim import Claim, Compare, Context, Outcome, register
from netsuke.papers.claims._binary import answers, compiled, engine_answers, network, top1, train

ENDS = (1.0, 3.0, 10.0)


def _trade(seed: int) -> tuple[list[float], list[float]]:
    """Both indicators for every exponent of ENDS, at the end of the schedule, on one batch."""
    import torch

    from netsuke.methods.binarize import reste
    from netsuke.nn.binary_layers import set_progress

    errors, instabilities = [], []
    x = torch.rand(32, 1, 8, 8, generator=torch.Generator().manual_seed(seed))
    for end in ENDS:
        model = reste.apply(network(seed), reste.Config(end=end))
        set_progress(model, 1.0)
        torch.nn.functional.cross_entropy(model(x), torch.arange(32) % 10).backward()
        seen = reste.indicators(model)
        errors.append(seen.estimating_error)
        instabilities.append(seen.instability)
    return errors, instabilities


def measure(context: Context, seed: int) -> Outcome:
    """ReSTE and clipped signs, trained alike."""
    from netsuke.methods.binarize import bnn, reste
    from netsuke.nn.binary_layers import freeze

    errors, instabilities = _trade(seed)
    model = train(reste.apply(network(seed), reste.Config()), seed)
    freeze(model)
    given, true = answers(model)
    program = compiled(model)
    plain = train(bnn.apply(network(seed), bnn.Config()), seed)
    context.progress(f"seed {seed}: ReSTE {float((given == true).mean()):.4f}, clipped signs {top1(plain):.4f}")
    return Outcome(
        exact={
            "the estimating error falls with the exponent": errors == sorted(errors, reverse=True),
            "the instability of gradients rises with the exponent": instabilities == sorted(instabilities),
            "every binarized layer runs at one bit": sum(n.op == "bconv" for n in program.nodes) == 4,
            "the engine gives the label of the trained network on every test image": bool(
                np.array_equal(engine_answers(program), given)
            ),
        },
        figures={
            "top1": float((given == true).mean()),
            "top1_clipped_signs": top1(plain),
            **{f"estimating_error_o{end:g}": e for end, e in zip(ENDS, errors, strict=True)},
            **{f"instability_o{end:g}": v for end, v in zip(ENDS, instabilities, strict=True)},
        },
    )


CLAIM = register(
    Claim(
        id="reste/digits",
        paper="reste",
        sentence="The exponent trades error against stability, and accuracy is no lower than with clipped signs.",
        baseline="signs with clipped gradients, trained alike",
        measure=measure,
        compares=(Compare("top1", "top1_clipped_signs", -0.005),),
        minutes=4,
        methods=("binarize/reste", "binarize/bnn"),
    )
)
