"""BRECQ: learned rounding and activation ranges, one residual block at a time.

Paper: Li et al., "BRECQ: Pushing the Limit of Post-Training Quantization by Block Reconstruction", 2021 (arXiv
2102.05426); random mixing of float and quantized inputs from Wei et al., "QDrop", 2022 (arXiv 2203.05740).
Idea: inside a block layers compensate for each other, so the block's output is what is kept; how much an element of
it matters is told by the gradient of the task's loss.
Equations: AdaRound's variable for all layers of a block together, loss E sum_c f_c (y_c - y'_c)^2, f = (1 + |g| /
rms(g))^2 scaled to mean 1, g the gradient of log p(answer | x), the answer drawn from the float network's own
output (the diagonal of the Fisher information), rms per sample. Scales of activations first read in the block are
trained with it, s = s0 exp(t), gradient as in LSQ. Each element of the block's input is the float one with
probability `drop`.
Differences: blocks are found in the graph as stretches between tensors through which alone everything passes. The
paper weighs by g^2, but a trained network is sure of most samples, whose g is all but zero; the 1 and the rms per
sample keep them. The paper trains ranges after the weights, in 5000 of 20,000 iterations, here both at once in
`iterations`. First and last layer follow the plan.
Cost: as AdaRound per layer, plus one backward pass per block. Limits: needs torch; activations of a block are held
in memory, at most 256 MiB of each kind, samples are dropped to fit.
"""

from __future__ import annotations

from dataclasses import dataclass

from netsuke.core.method import Method, register
from netsuke.methods.quantize._context import Context
from netsuke.methods.quantize._learned import check, require_torch
from netsuke.methods.quantize._units import block_units


@dataclass(frozen=True)
class Brecq:
    """Options.

    iterations, batch, rate  of Adam; `rate` is the rounding variable's
    samples    calibration samples used, at most
    regular    weight of the term that decides between 0 and 1
    ranges     rate of the logarithm of activation scales; 0: they stay as calibrated
    drop       probability that an element of the input is the float one
    loss       "fisher", "l2" or "l1"
    """

    iterations: int = 400
    batch: int = 32
    rate: float = 1e-2
    samples: int = 256
    regular: float = 0.01
    ranges: float = 1e-3
    drop: float = 0.5
    loss: str = "fisher"

    def __post_init__(self) -> None:
        check("quantize/brecq", self)


def apply(context: Context, config: Brecq) -> None:
    """Choose the codes of every quantized layer with weights, and ranges of activations, block by block."""
    require_torch("quantize/brecq")
    from netsuke.methods.quantize._reconstruct import Fit, reconstruct

    fit = Fit(
        loss=config.loss,
        iterations=config.iterations,
        batch=config.batch,
        rate=config.rate,
        samples=config.samples,
        regular=config.regular,
        ranges=config.ranges,
        drop=config.drop,
    )
    reconstruct(context, block_units(context.model.graph, context.placement), fit, "brecq")


METHOD = register(
    Method(
        name="quantize/brecq",
        purpose="learn rounding and activation ranges block by block, errors weighted by the task's gradient",
        paper="gptq-status-quo",
        config=Brecq,
        apply=apply,
        needs=("data",),
        touches=("weights", "activations"),
        exports=("qconv", "qlinear"),
        cost="ten seconds a block, torch",
        tags=("weights", "learned"),
    )
)
