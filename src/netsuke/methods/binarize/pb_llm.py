"""PB-LLM in training: salient weights frozen at 8 bits, the others trained at one.

Paper: PB-LLM: Partially Binarized Large Language Models, Shang et al. 2023 (arXiv 2310.00034); ledger row pb-llm.
Idea: binarize a trained language model but for its largest weights, which stay as they are; the rest recovers in a
short training.
Equations: the `salient` share of the largest |w| of a layer is rounded to 8 bits once and frozen; elsewhere w -> a_o
sign(w), a_o = E|w| of the row's other weights at every step, gradient through the sign unchanged.
Differences: a_o is a scale a row, rounded to the row's 8-bit grid (max|w| / 127), so that a layer is one matrix of
8-bit codes (the paper: one scale a layer, both parts apart); salient are the largest magnitudes, not equal numbers of
either sign.
Served: linear layers become `wlinear`; in the file two levels a row, a bit a weight, a bitmap and 8 bits for salient
ones (docs/format.md section 3), decoded to 8 bits at load. Convolutions stay float there.
Cost: one mean a row and step. Limits: apply it to a trained network; what is salient is decided then.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from netsuke.core.errors import Problem, UsageError
from netsuke.core.method import Method, register

if TYPE_CHECKING:
    from torch import nn

    from netsuke.nn.binary_layers import Layer


@dataclass(frozen=True)
class Config:
    """salient: share of a layer's weights that keep 8 bits; inputs: "float", or "int8" with a scale a token."""

    salient: float = 0.1
    inputs: str = "float"


def apply(model: nn.Module, config: Config, *, keep: Sequence[str] | None = None) -> nn.Module:
    """Make the layers of a trained network partly binary, in place; see the room's contract."""
    from netsuke.nn.binarizer import Binarizer, Token8
    from netsuke.nn.binarizer_salient import Salient
    from netsuke.nn.binary_layers import binarize

    problems = []
    if not 0 <= config.salient <= 1:
        problems.append(Problem("salient", "binarize/pb_llm", str(config.salient), "a share in [0, 1]"))
    if config.inputs not in ("float", "int8"):
        problems.append(Problem("inputs", "binarize/pb_llm", config.inputs, "float, int8"))
    if problems:
        raise UsageError(problems)

    def weights(layer: Layer) -> Binarizer:
        return Salient(layer.weight, config.salient)

    def inputs(_: Layer) -> Binarizer | None:
        return Token8() if config.inputs == "int8" else None

    return binarize(model, weights=weights, inputs=inputs, keep=keep)


METHOD = register(
    Method(
        name="binarize/pb_llm",
        purpose="salient weights frozen at 8 bits, the others trained at one",
        paper="pb-llm",
        config=Config,
        apply=apply,
        needs=("training",),
        touches=("weights",),
        exports=("wlinear",),
        status="trial",
        cost="one mean a row and step",
    )
)
