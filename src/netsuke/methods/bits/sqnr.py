"""Noise of the layer's own output: how much of what a layer writes is rounding noise.

Paper: Krishnamoorthi, "Quantizing deep convolutional networks for efficient inference: A whitepaper", 2018 (arXiv
1806.08342) for the quantizers; the measure is that of Lin et al., "Fixed Point Quantization of Deep Convolutional
Networks", 2016 (arXiv 1511.06393), section 4.
Idea: a layer whose output drowns in noise needs more bits, whatever comes behind it.
Equations: harm(l, f) = sum (y_f - y)^2 / sum y^2 over the layer's output with only layer l at format f (10^(-SQNR/10)).
Differences: Lin et al. derive the noise from a model of the distributions; here it is measured.
Cost: one run per layer and format. Limits: blind to what the network does with the noise.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from netsuke.core.method import Method, register
from netsuke.methods.bits._probe import Probe, relative
from netsuke.methods.bits._problem import Format


@dataclass(frozen=True)
class Sqnr:
    """No options."""


def apply(
    probe: Probe, layers: Sequence[str], formats: Sequence[Format], config: Sqnr = Sqnr()  # noqa: ARG001
) -> dict[tuple[str, Format], float]:  # fmt: skip
    """Noise-to-signal ratio of each layer's output at each format."""
    found = {}
    for name in layers:
        output = probe.layer(name).output.name or ""
        exact = probe.run(probe.context.model, [output])[output]
        for fmt in formats:
            found[name, fmt] = relative(exact, probe.only(name, fmt, output=True)[output])
    return found


METHOD = register(
    Method(
        name="bits/sqnr",
        purpose="rate a layer's format by the noise in the layer's own output",
        paper="quant-whitepaper",
        config=Sqnr,
        apply=apply,
        needs=("data",),
        cost="one run over a few samples per layer and format",
        tags=("sensitivity",),
    )
)
