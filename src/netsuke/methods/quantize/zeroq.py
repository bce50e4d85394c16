"""ZeroQ's distilled data: calibration inputs made from what batch normalization remembers.

Paper: Cai et al., "ZeroQ: A Novel Zero Shot Quantization Framework", 2020 (arXiv 2001.00281), section 3.1.
Idea: batch normalization stores mean and deviation of every channel over the training data; inputs that reproduce
these numbers in all layers at once use the network as training data does, so ranges measured on them fit.
Equations: from x ~ N(0, 1), Adam on x minimises sum over normalized layers of mean_c[((mean_c - beta_c) /
gamma_c)^2 + ((std_c - |gamma_c|) / gamma_c)^2], moments of the layer's output over batch and positions, plus the
same term for the input with mean 0 and deviation 1. Calibration then runs on x as on any data.
Differences: statistics are those behind the folded normalization (mean beta, deviation |gamma|), divided by
|gamma|, which is the paper's loss in units of each channel's deviation; moments are taken over the batch, as the
stored ones are (the released code takes them per sample). The rate falls as a cosine instead of waiting for
plateaus, 150 iterations instead of 500. Sensitivities and the Pareto choice of bits belong to the bit search.
Cost: `iterations` forward and backward passes of one batch. Limits: needs torch, batch normalization in the
captured graph (networks without it are refused), inputs normalised to mean 0 and deviation 1.
"""

from __future__ import annotations

from dataclasses import dataclass

import onnx_ir as ir

from netsuke.core.errors import Problem, UsageError
from netsuke.core.method import Method, register
from netsuke.data import Dataset
from netsuke.methods.quantize._context import data_input
from netsuke.methods.quantize._graph import dims, normalized
from netsuke.methods.quantize._learned import check, require_torch

SOURCE = "data-free (distilled inputs)"
SIDE = 64  # height and width where the network leaves them free


@dataclass(frozen=True)
class ZeroQ:
    """Options.

    samples     inputs made, in one batch
    iterations  of Adam
    rate        at the start; falls to zero as a cosine
    """

    samples: int = 32
    iterations: int = 150
    rate: float = 0.2

    def __post_init__(self) -> None:
        check("quantize/zeroq", self)


def input_shape(model: ir.Model) -> tuple[int, ...]:
    """Shape of one input; UsageError when the network is not one ZeroQ can serve."""
    value, problems = data_input(model), []
    shape = dims(value)
    if value.dtype != ir.DataType.FLOAT or shape is None or len(shape) != 4 or shape[1] is None:
        got = f"{value.dtype}, shape {value.shape}"
        problems.append(Problem("one float image input is needed", value.name or "", got, "[N, C, H, W]"))
    if not normalized(model):
        what = "no batch normalization was folded into this network, so it remembers nothing of its data"
        problems.append(Problem(what, hint="give calibration data, or leave quantize/zeroq out"))
    if problems:
        raise UsageError(problems)
    assert shape is not None
    return (shape[1] or 0, shape[2] or SIDE, shape[3] or SIDE)


def apply(model: ir.Model, config: ZeroQ, seed: int = 0) -> Dataset:
    """Distilled inputs of the captured float network."""
    shape = input_shape(model)
    require_torch("quantize/zeroq")
    from netsuke.methods.quantize._distill import distill

    found = distill(model, (config.samples, *shape), config.iterations, config.rate, seed)
    return Dataset.from_arrays(found.inputs, source=SOURCE)


METHOD = register(
    Method(
        name="quantize/zeroq",
        purpose="make calibration inputs from batch-norm statistics, without any data",
        paper="zeroq",
        config=ZeroQ,
        apply=apply,
        touches=("activations",),
        exports=("qconv", "qlinear"),
        cost="150 passes forward and backward of one batch of 32, torch",
        tags=("source",),
    )
)
