"""Stored bytes: what a layer's weights take in the file.

Paper: Yao et al., "HAWQ-V3: Dyadic Neural Network Quantization", 2021 (arXiv 2011.10680), section 3.4 (model size
limit).
Idea: codes are stored at the fewest bits that hold them.
Equations: cost(l, f) = ceil(n_l b / 8) + 8 O_l bytes; b is 8 for 7, O_l the output channels (a float multiplier and a
float bias each).
Differences: the paper counts the codes alone; here the limit is on the whole file where its text can be sized.
Cost: none. Limits: none known.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from netsuke.core.method import Method, register
from netsuke.methods.bits._probe import Probe
from netsuke.methods.bits._problem import Format
from netsuke.methods.quantize._rows import stored_bytes


@dataclass(frozen=True)
class Size:
    """No options."""


def apply(
    probe: Probe, layers: Sequence[str], formats: Sequence[Format], config: Size = Size()  # noqa: ARG001
) -> dict[tuple[str, Format], float]:  # fmt: skip
    """Bytes of each layer at each format."""
    return {(n, f): float(stored_bytes(probe.layer(n), f.weight_bits)) for n in layers for f in formats}


METHOD = register(
    Method(
        name="bits/size",
        purpose="count the stored bytes of a layer at a format",
        paper="hawq-v3",
        config=Size,
        apply=apply,
        cost="none",
        tags=("cost",),
    )
)
