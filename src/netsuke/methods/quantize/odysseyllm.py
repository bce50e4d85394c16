"""OdysseyLLM's W4A8: symmetric weights per channel, clipped where the output says so, then GPTQ.

Paper: Li et al., "A Speed Odyssey for Deployable Quantization of LLMs", 2023 (arXiv 2311.09550).
Idea: 4-bit weights that integer units can multiply without group scales and zero points lose accuracy to a few
large weights; a clipping level per channel, chosen for the output and not for the weights, and GPTQ's compensation
win it back.
Equations: per output channel s = c max|W| / (2^(b-1) - 1) with c in (0, 1]; W' = GPTQ(W, s) (quantize/gptq); c is the
share among 1, 0.95, ... 0.4 with the least (W - W') H (W - W')^T, H = 2 X X^T / n.
Differences: the paper learns a share for the largest and one for the smallest weight by gradient through a block, then
runs GPTQ; the codes are symmetric here, so one share matters, and a layer's squared output error separates into
channels, so the best share is found by trying, compensation included. Activations are 8-bit per tensor with
calibrated ranges instead of per token. The kernels are those of qlinear: which layout stands for the paper's
high-nibble trick is the engine's choice.
Cost: thirteen times GPTQ. Limits: those of GPTQ.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from netsuke.core.method import Method, register
from netsuke.methods.quantize._codes import SMALLEST, weight_scales
from netsuke.methods.quantize._context import Context
from netsuke.methods.quantize._graph import Array
from netsuke.methods.quantize._learned import check
from netsuke.methods.quantize.gptq import Gptq, Matrix, each_layer, gptq

SHARES = tuple(1 - 0.05 * i for i in range(13))


@dataclass(frozen=True)
class OdysseyLlm:
    """Options.

    damp, act_order, block  of GPTQ
    samples                 calibration samples used, at most
    inputs                  "quantized" (by the layers in front) or "float"
    """

    damp: float = 0.01
    act_order: bool = True
    block: int = 128
    samples: int = 256
    inputs: str = "quantized"

    def __post_init__(self) -> None:
        check("quantize/odysseyllm", self)


def clipped(weight: Array, hessian: Matrix, bits: int, **options: Any) -> tuple[npt.NDArray[np.int8], Array]:
    """Codes [rows, columns] and scales [rows]: GPTQ with the share of max|W| that leaves the least error."""
    exact, full = weight.astype(np.float64), weight_scales(weight, 0, bits)
    least, found, best = np.full(len(weight), np.inf), full.copy(), np.zeros(weight.shape, np.int8)
    for share in SHARES:
        steps = np.asarray(np.maximum(full * share, SMALLEST), np.float32)
        codes, _ = gptq(weight, hessian, bits=bits, scales=steps, **options)
        delta = exact - codes * steps[:, None].astype(np.float64)
        error = np.einsum("ri,ri->r", delta @ hessian, delta)
        better = error < least
        least, found = np.where(better, error, least), np.where(better, steps, found)
        best = np.where(better[:, None], codes, best)
    return best, np.asarray(found, np.float32)


def apply(context: Context, config: OdysseyLlm) -> None:
    """Choose scales and codes of every quantized layer with weights, in graph order."""
    walk = Gptq(config.damp, config.act_order, config.block, config.samples, config.inputs)
    options: dict[str, Any] = {"damp": config.damp, "act_order": config.act_order, "block": config.block}
    for part in each_layer(context, walk, "odysseyllm"):
        if part.per_channel:
            done = [clipped(w, h, part.bits, **options) for w, h in zip(part.rows, part.hessians, strict=True)]
            part.codes, part.scales = [codes for codes, _ in done], [steps for _, steps in done]
            continue
        triples = zip(part.rows, part.scales, part.hessians, strict=True)  # one scale for all: nothing to clip
        part.codes = [gptq(w, h, bits=part.bits, scales=s, **options)[0] for w, s, h in triples]


METHOD = register(
    Method(
        name="quantize/odysseyllm",
        purpose="clip each channel where its output says so, then compensate with GPTQ: W4A8 without groups",
        paper="odysseyllm",
        config=OdysseyLlm,
        apply=apply,
        needs=("data",),
        touches=("weights",),
        exports=("qlinear", "qconv"),
        cost="one run and one Cholesky factorization a layer",
        tags=("weights", "learned"),
    )
)
