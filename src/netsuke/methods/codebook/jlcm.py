"""JLCM: scalar codebooks whose entries and index map are learned together.

Paper: "Network Memory Footprint Compression Through Jointly Learnable Codebooks and Mappings", 2023 (arXiv
2309.17361).
Idea: a table of 2^b values fits the distribution of weights better than a uniform grid; k-means fits the weights,
not the layer's output, so table and map are learned on the output, a weight moving only to a neighbouring entry at
a time.
Equations: per layer, weights in units of their channel's scale s = max|W| / 127, entries C sorted; init by k-means.
Each weight has a position p, its value is s C[round(p)]; dL/dp = dL/dw s (C[i+1] - C[i-1]) / 2, C receives the sum
of its members' gradients. Minimised per layer: E sum_c (y_c - y'_c)^2, inputs from the network as quantized so far.
At the end C is rounded to integers, so codes lie on the 8-bit grid.
Differences: known from abstract and reviews; the update rule is a reconstruction. One codebook a layer;
similar neurons (by the range of their weights) share a scale with `groups`, or each channel has its own. Neurons are
not reordered: which channel has which scale is in the multipliers that the file holds anyway.
Cost: a few seconds a layer of a CIFAR ResNet. Limits: needs torch. The file holds indices and entries (docs/format.md
section 3) where that saves a sixth of the plain codes; they are decoded when it is loaded, so memory traffic is that
of 8-bit weights.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from netsuke.core.errors import Problem, UsageError
from netsuke.core.method import Method, register
from netsuke.methods.codebook._codebook import Codebook
from netsuke.methods.codebook._start import start
from netsuke.methods.quantize._context import Context
from netsuke.methods.quantize._learned import check, require_torch
from netsuke.methods.quantize._rows import stored_bytes
from netsuke.methods.quantize._units import layer_units, weighted


@dataclass(frozen=True)
class Jlcm:
    """Options.

    iterations, batch  of Adam; 0 iterations leave k-means
    rate       of positions, in entries; entries: of the entries, in steps of the 8-bit grid
    samples    calibration samples used, at most
    groups     channels whose weights have similar ranges share a scale, in this many groups; 0: a scale per channel
    """

    iterations: int = 200
    batch: int = 32
    rate: float = 1e-2
    entries: float = 1e-2
    samples: int = 256
    groups: int = 0

    def __post_init__(self) -> None:
        if self.groups != 0 and not 2 <= self.groups <= 256:
            raise UsageError(Problem("groups", "codebook/jlcm", str(self.groups), "0, or 2 to 256"))
        if self.iterations == 0:
            check("codebook/jlcm", Jlcm(1, self.batch, self.rate, self.entries, self.samples))
        else:
            check("codebook/jlcm", self)


def apply(context: Context, config: Jlcm) -> None:
    """Codebooks for every layer whose row has 2 to 7 weight bits; layers of 8 bits are left alone."""
    require_torch("codebook/jlcm")
    rows = {x.name: context.plan[x.name].rows[0] for x in weighted(context.placement)}
    chosen = [x for x in weighted(context.placement) if (rows[x.name].weight_bits or 8) < 8]
    tensor = [
        Problem("granularity", x.name, "tensor", "channel") for x in chosen if rows[x.name].granularity != "channel"
    ]
    if tensor:
        raise UsageError(tensor, "codebooks need one scale per channel")
    for layer in chosen:
        start(context, layer, rows[layer.name].weight_bits or 8, config.groups)
    if config.iterations:
        from netsuke.methods.quantize._reconstruct import Fit, reconstruct

        names = {x.name for x in chosen}
        units = [u for u in layer_units(context.placement) if u.name in names]
        fit = Fit(
            variable="codebook",
            iterations=config.iterations,
            batch=config.batch,
            rate=config.rate,
            entries=config.entries,
            samples=config.samples,
            regular=0.0,
        )
        reconstruct(context, units, fit, "jlcm")
    stored = plain = 0
    for layer in chosen:
        row, book = rows[layer.name], codebook(context.codes[layer.name])
        row.status = "packed"
        row.reason = f"{book.bits}-bit indices into {len(book.entries)} entries, decoded at load"
        row.bytes_after = book.stored_bytes(entry_bytes=1) + 8 * context.scales[layer.name].size
        stored += row.bytes_after
        plain += stored_bytes(layer, 8)
    context.plan.note(
        f"jlcm: {len(chosen)} layers take {stored:,} bytes as indices and entries, {plain:,} as plain 8-bit codes"
    )


def codebook(codes: np.ndarray) -> Codebook:
    """The codebook of decoded codes: their different values, sorted, and each one's index."""
    entries, indices = np.unique(codes, return_inverse=True)
    return Codebook(entries.astype(np.float32)[:, None], indices.reshape(-1).astype(np.uint8))


METHOD = register(
    Method(
        name="codebook/jlcm",
        purpose="scalar codebooks whose entries and index map are learned together on the layer's output",
        paper="jlcm",
        config=Jlcm,
        apply=apply,
        needs=("data",),
        touches=("weights",),
        exports=(),
        cost="a few seconds a layer, torch",
        tags=("weights", "learned"),
    )
)
