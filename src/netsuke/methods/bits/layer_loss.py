"""Loss of one layer's quantization: how far the network's outputs move when only this layer changes its bits.

Paper: Hubara et al., "Improving Post Training Neural Quantization: Layer-wise Calibration and Integer Programming",
2020 (arXiv 2006.10518), section 4.
Idea: switch one layer at a time, measure the loss, and let an integer program add up.
Equations: harm(l, f) = max(sum_o ||o_(l,f) - o||^2 / ||o||^2, 1e-6) over the network's outputs o.
Differences: the paper measures the task loss or accuracy and so needs labels; this is the squared error against the
float network's outputs. The floor of 1e-6 is the released code's.
Cost: one run per layer and format. Limits: errors of several layers do not quite add.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from netsuke.core.method import Method, register
from netsuke.methods.bits._probe import Probe, relative
from netsuke.methods.bits._problem import Format

FLOOR = 1e-6


@dataclass(frozen=True)
class LayerLoss:
    """No options."""


def apply(
    probe: Probe, layers: Sequence[str], formats: Sequence[Format], config: LayerLoss = LayerLoss()  # noqa: ARG001
) -> dict[tuple[str, Format], float]:  # fmt: skip
    """Squared relative change of the outputs for each layer and format."""
    exact, found = probe.exact(), {}
    for name in layers:
        for fmt in formats:
            other = probe.only(name, fmt)
            found[name, fmt] = max(sum(relative(exact[o], other[o]) for o in exact), FLOOR)
    return found


METHOD = register(
    Method(
        name="bits/layer_loss",
        purpose="rate a layer's format by the squared change of the network's outputs",
        paper="adaquant-ip",
        config=LayerLoss,
        apply=apply,
        needs=("data",),
        cost="one run over a few samples per layer and format",
        tags=("sensitivity",),
    )
)
