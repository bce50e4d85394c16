"""KL sensitivity: how far the predicted distribution moves when only one layer changes its bits.

Paper: Cai et al., "ZeroQ: A Novel Zero Shot Quantization Framework", 2020 (arXiv 2001.00281), section 3.2, equation 4.
Idea: what matters of a classifier is its distribution over classes.
Equations: harm(l, f) = mean over samples of KL(M(x) || M_(l,f)(x)).
Differences: none on distilled data (calibration data made by `bits/zeroq`); here on whatever calibration data there
are. Outputs that are not [N, classes] count with their squared relative change.
Cost: one run per layer and format. Limits: saturated predictions hide harm that other inputs would show.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from netsuke.core.method import Method, register
from netsuke.methods.bits._probe import Probe, divergence
from netsuke.methods.bits._problem import Format


@dataclass(frozen=True)
class Kl:
    """No options."""


def apply(
    probe: Probe, layers: Sequence[str], formats: Sequence[Format], config: Kl = Kl()  # noqa: ARG001
) -> dict[tuple[str, Format], float]:  # fmt: skip
    """Divergence of the outputs for each layer and format."""
    exact = probe.exact()
    return {(name, fmt): divergence(exact, probe.only(name, fmt)) for name in layers for fmt in formats}


METHOD = register(
    Method(
        name="bits/kl",
        purpose="rate a layer's format by the divergence of the network's predictions",
        paper="zeroq",
        config=Kl,
        apply=apply,
        needs=("data",),
        cost="one run over a few samples per layer and format",
        tags=("sensitivity",),
    )
)
