"""Measured latency: milliseconds of a layer at a format, on this CPU, in the engine that will run it.

Paper: Yao et al., "HAWQ-V3: Dyadic Neural Network Quantization", 2021 (arXiv 2011.10680), section 3.4 (latency limit).
Idea: ask the hardware; on most CPUs fewer bits save nothing where no kernel profits from them, and the search should
know.
Equations: cost(l, f) = median time of the program's nodes of layer l with every searched layer at format f.
Differences: the paper times layers one by one; here the whole network is compiled once per format and its per-layer
profile read, so that caches and fused neighbours are as in use. The profiler keeps times by CPU, instruction set,
threads and what the layer is.
Cost: one compilation and one profile per format. Limits: a layer's time can depend on its neighbours' formats.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from netsuke.core.errors import Problem as Trouble
from netsuke.core.errors import UsageError
from netsuke.core.method import Method, register
from netsuke.methods.bits._probe import Probe
from netsuke.methods.bits._problem import Format
from netsuke.methods.quantize._profile import times


@dataclass(frozen=True)
class Latency:
    """No options."""


def apply(
    probe: Probe, layers: Sequence[str], formats: Sequence[Format], config: Latency = Latency()  # noqa: ARG001
) -> dict[tuple[str, Format], float]:  # fmt: skip
    """Milliseconds of each layer at each format, one sample at a time."""
    if probe.context.profiler is None:
        what = "latency can only be budgeted where the engine can be timed"
        raise UsageError(Trouble(what, "latency", "no compiled runtime", hint="netsuke doctor, or size= or bops="))
    found: dict[tuple[str, Format], float] = {}
    for fmt in formats:
        measured = times(probe.context, dict.fromkeys(layers, (fmt.weight_bits, fmt.activation_bits)))
        found |= {(name, fmt): measured.get(name, 0.0) for name in layers}
        probe.tick()
    return found


METHOD = register(
    Method(
        name="bits/latency",
        purpose="measure the time of a layer at a format in the engine on this CPU",
        paper="hawq-v3",
        config=Latency,
        apply=apply,
        cost="one compilation and profile per format",
        tags=("cost",),
    )
)
