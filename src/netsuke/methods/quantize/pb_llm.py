"""PB-LLM after training: one bit a weight, but for a small share of salient ones that keep eight.

Paper: PB-LLM: Partially Binarized Large Language Models, Shang et al. 2023 (arXiv 2310.00034); ledger row pb-llm.
Idea: all weights at one bit destroy a language model; a few per cent of them, left at 8 bits, carry most of what is
lost, and GPTQ's compensation spreads the rest of the error.
Equations: H = 2 X X^T / n, damped, U the upper Cholesky factor of H^-1; salient are the largest |w_ij| ("magnitude") or
w_ij^2 / U_jj^2 ("hessian") of the layer. The others become mu_i +- alpha_i, mu and alpha the mean and the mean distance
from it of the row's other weights. Column by column as in quantize/gptq, the row's free columns taking up each error.
Differences: both levels lie on the row's 8-bit grid (scale max|w| / 127), so that a layer is one matrix of 8-bit codes
and runs on integer kernels, activations at 8 bits; mu and alpha divide by the number of weights they are made of. The
last layer (the paper's output head) keeps 8 bits for all weights unless `last` is set.
Stored: two levels a row, a bit a weight, a bitmap and 8 bits for the salient ones: 2 + 7 f bits a weight (format.md
section 3), decoded to 8 bits at load. The file shrinks; time and memory are those of an 8-bit layer.
Cost: one run over the samples and one Cholesky factorization a layer. Limits: those of quantize/gptq.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from netsuke.core.errors import Problem, UsageError
from netsuke.core.method import Method, register
from netsuke.formats.packing_forms import salient_bytes
from netsuke.methods.quantize._context import Context
from netsuke.methods.quantize._graph import Array
from netsuke.methods.quantize._learned import check
from netsuke.methods.quantize._units import weighted
from netsuke.methods.quantize.gptq import Gptq, Matrix, Part, _factor, each_layer

TOP = 127
METRICS = ("hessian", "magnitude")


@dataclass(frozen=True)
class PbLlm:
    """Options.

    salient  share of a layer's weights that keep 8 bits, 0 to 1
    metric   what makes a weight salient: "hessian" or "magnitude"
    last     binarize the last layer too
    damp, block, samples, inputs   as in quantize/gptq
    """

    salient: float = 0.1
    metric: str = "hessian"
    last: bool = False
    damp: float = 0.01
    block: int = 128
    samples: int = 256
    inputs: str = "quantized"

    def __post_init__(self) -> None:
        check("quantize/pb_llm", self)
        problems = []
        if not self.salient <= 1:
            problems.append(Problem("salient", "quantize/pb_llm", str(self.salient), "a share in [0, 1]"))
        if self.metric not in METRICS:
            problems.append(Problem("metric", "quantize/pb_llm", self.metric, ", ".join(METRICS)))
        if problems:
            raise UsageError(problems)


def salient_mask(weight: Matrix, factor: Matrix, share: float, metric: str) -> npt.NDArray[np.bool_]:
    """The `share` of the weights [rows, columns] that matter most; of equals the first."""
    size = weight**2 / np.diag(factor) ** 2 if metric == "hessian" else np.abs(weight)
    mask = np.zeros(weight.size, bool)
    mask[np.argsort(-size.reshape(-1), kind="stable")[: round(share * weight.size)]] = True
    return mask.reshape(weight.shape)


def binary_levels(weight: Matrix, mask: npt.NDArray[np.bool_]) -> tuple[Matrix, Matrix]:
    """mu, alpha [rows] of the weights outside the mask; 0 where a row has none."""
    free = ~mask
    count = np.maximum(free.sum(1), 1)
    mu = (weight * free).sum(1) / count
    return mu, (np.abs(weight - mu[:, None]) * free).sum(1) / count


def pb_codes(
    weight: npt.NDArray[np.floating], hessian: Matrix, scales: Array, config: PbLlm
) -> tuple[npt.NDArray[np.int8], npt.NDArray[np.bool_]]:
    """8-bit codes [rows, columns] for steps `scales` [rows], and which weights are salient.

    Raises UsageError for an H that is not positive definite even when damped, or values that are not finite.
    """
    if not (np.isfinite(weight).all() and np.isfinite(hessian).all()):
        raise UsageError(Problem("NaN or infinity in the weight or in H"))
    hessian, work = np.array(hessian, np.float64), np.array(weight, np.float64)
    dead = np.diag(hessian) <= 0
    hessian[dead, dead] = 1.0
    work[:, dead] = 0.0
    factor, steps = _factor(hessian, config.damp), np.asarray(scales, np.float64)
    mask = salient_mask(work, factor, config.salient, config.metric)
    mu, alpha = binary_levels(work, mask)
    low, high = (np.clip(np.rint(level / steps), -TOP, TOP) for level in (mu - alpha, mu + alpha))
    codes, columns = np.zeros(work.shape, np.int8), work.shape[1]
    for first in range(0, columns, config.block):
        last = min(first + config.block, columns)
        errors = np.zeros((len(work), last - first))
        for j in range(first, last):
            column = work[:, j]
            exact = np.clip(np.rint(column / steps), -TOP, TOP)
            codes[:, j] = np.where(mask[:, j], exact, np.where(column >= mu, high, low))
            errors[:, j - first] = (column - codes[:, j] * steps) / factor[j, j]
            work[:, j:last] -= np.outer(errors[:, j - first], factor[j, j:last])
        work[:, last:] -= errors @ factor[first:last, last:]
    return codes, mask


def _eight_bits(part: Part) -> list[npt.NDArray[np.int8]]:
    return [
        np.asarray(np.clip(np.rint(w / s[:, None]), -TOP, TOP), np.int8)
        for w, s in zip(part.rows, part.scales, strict=True)
    ]


def apply(context: Context, config: PbLlm) -> None:
    """Choose the codes of every quantized layer with weights, in graph order."""
    walk = Gptq(config.damp, False, config.block, config.samples, config.inputs)
    layers = weighted(context.placement)
    wrong = [
        Problem("weight bits", x.name, str(context.plan[x.name].rows[0].weight_bits), "8: the grid of both levels")
        for x in layers
        if (context.plan[x.name].rows[0].weight_bits or 8) != 8
    ]
    if wrong:
        raise UsageError(wrong, "quantize/pb_llm follows a recipe of 8-bit weights")
    stored = count = salient = 0
    for layer, part in zip(layers, each_layer(context, walk, "pb_llm"), strict=True):
        if layer is layers[-1] and not config.last:
            part.codes = _eight_bits(part)
            continue
        found = [pb_codes(w, h, s, config) for w, s, h in zip(part.rows, part.scales, part.hessians, strict=True)]
        part.codes = [codes for codes, _ in found]
        salient += sum(int(mask.sum()) for _, mask in found)
        taken = sum(salient_bytes(codes) or codes.size for codes in part.codes)
        row = context.plan[layer.name].rows[0]
        row.bytes_after = taken + 8 * sum(len(rows) for rows in part.rows)
        row.reason = f"one bit but for {100 * config.salient:g} % salient weights of 8"
        stored, count = stored + taken, count + sum(codes.size for codes in part.codes)
    bits = 8 * stored / max(1, count)
    context.plan.note(
        f"pb_llm: {salient:,} of {count:,} weights salient; {bits:.3f} bits a weight with levels and bitmap"
    )


METHOD = register(
    Method(
        name="quantize/pb_llm",
        purpose="one bit a weight but for a few salient ones at eight, errors compensated as in GPTQ",
        paper="pb-llm",
        config=PbLlm,
        apply=apply,
        needs=("data",),
        touches=("weights",),
        exports=("qconv", "qlinear"),
        cost="one run and one Cholesky factorization a layer",
        tags=("weights", "learned"),
    )
)
