"""BinaryDM: weights of two binary bases that come down to one, activations of 4 bits, features mimicked in low rank.

Paper: BinaryDM, Zheng et al. 2024 (arXiv 2404.05662); ledger row binarydm.
Idea: a diffusion network does not survive the step to one bit at once. It starts with two bases a weight; the inner
layers lose theirs during training, the outer ones, where resolution is highest, keep it. The float network's features
guide it, projected on their principal channels, where one bit can follow.
Equations: w -> s1 sign(w) + s2 sign(w - s1 sign(w)), s1, s2 per output channel, started at E|w| and E|rest|, trained;
gradients clipped to [-1, 1]; s2 of layers that match `inner` is multiplied by max(0, 1 - progress / gone). Activations
s round(clip(x / s, lo, hi)) with s trained as in LSQ. Loss += 1e-4 mean over blocks of MSE(f K, f_teacher K), K the
first C / 4 principal directions of the teacher's channels in the first batch (`Mimic`).
Differences: progress fades the second basis out; the paper's release switches binarization on group by group from the
middle outwards. Principal directions are taken over channels (the release takes the last axis).
Served: every basis is an integer convolution with weights of one bit in the file and few-bit codes as input.
Cost: two binary products for each layer with two bases; the teacher's forward pass a step. Limits: convolutions and
linear layers only; attention products stay as they are.
"""

from __future__ import annotations

import fnmatch
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from netsuke.core.errors import Problem, UsageError
from netsuke.core.method import Method, register

if TYPE_CHECKING:
    from torch import Tensor, nn

    from netsuke.nn.binary_layers import Layer


@dataclass(frozen=True)
class Config:
    """two: start with two bases; inner: patterns, separated by |, of layers that lose the second one, or "none"; gone:
    share of training after which it is gone; input_bits: of activations, 2 to 8, or 0 for float."""

    two: bool = True
    inner: str = "none"
    gone: float = 0.5
    input_bits: int = 4


def _check(config: Config) -> None:
    problems = []
    if not 0 < config.gone <= 1:
        problems.append(Problem("gone", "binarize/binarydm", str(config.gone), "above 0, at most 1"))
    if config.input_bits not in (0, *range(2, 9)):
        problems.append(Problem("input_bits", "binarize/binarydm", str(config.input_bits), "0, 2 to 8"))
    if problems:
        raise UsageError(problems)


def apply(model: nn.Module, config: Config, *, keep: Sequence[str] | None = None) -> nn.Module:
    """Make the layers of the network binary, in place; see the room's contract."""
    from netsuke.nn.binarizer import Binarizer, Learned, Sign, TwoBases
    from netsuke.nn.binarizer_bases import FadingBases, FewBits
    from netsuke.nn.binary_layers import binarize, candidates
    from netsuke.nn.surrogates import Clipped

    _check(config)
    table, patterns = candidates(model), [p for p in config.inner.split("|") if p not in ("", "none")]
    wrong = [
        Problem("no layer matches", "binarize/binarydm inner", p) for p in patterns if not fnmatch.filter(table, p)
    ]
    if wrong:
        raise UsageError(wrong)
    names = {id(layer): name for name, layer in table.items()}

    def weights(layer: Layer) -> Binarizer:
        channels, name = layer.weight.shape[0], names[id(layer)]
        if not config.two:
            return Binarizer(Sign(Clipped()), Learned(channels))
        if any(fnmatch.fnmatchcase(name, p) for p in patterns):
            return FadingBases(channels, Clipped(), config.gone)
        return TwoBases(channels, Clipped())

    def inputs(_: Layer) -> Binarizer | None:
        return FewBits(config.input_bits) if config.input_bits else None

    return binarize(model, weights=weights, inputs=inputs, keep=keep)


class Mimic:
    """Low-rank mimicking of a teacher's features.

    blocks  names of modules that both networks have, whose outputs are [N, C, ...] tensors

    Run both networks on the same batch, then call `loss()`. `close()` takes the hooks off.
    """

    def __init__(self, teacher: nn.Module, student: nn.Module, blocks: Sequence[str], share: float = 0.25) -> None:
        self.blocks, self.share = tuple(blocks), share
        self._seen: dict[str, dict[str, Tensor]] = {"teacher": {}, "student": {}}
        self._bases: dict[str, Tensor] = {}
        nets = {"teacher": dict(teacher.named_modules()), "student": dict(student.named_modules())}
        wrong = [
            Problem("no such block", kind, b) for kind, table in nets.items() for b in self.blocks if b not in table
        ]
        if wrong or not self.blocks:
            raise UsageError(wrong or [Problem("no block to mimic", "binarize/binarydm")])
        self._hooks = [
            table[block].register_forward_hook(self._keeper(kind, block))
            for kind, table in nets.items()
            for block in self.blocks
        ]

    def _keeper(self, kind: str, block: str) -> Any:
        def keep(_module: nn.Module, _inputs: Any, output: Tensor) -> None:
            self._seen[kind][block] = output

        return keep

    def loss(self) -> Tensor:
        """Mean over blocks of the squared difference of the projected features of the last batch."""
        import torch

        parts = []
        for block in self.blocks:
            if any(block not in seen for seen in self._seen.values()):
                raise UsageError(Problem("a block has not run", got=block, hint="run teacher and student first"))
            student, teacher = (_by_channel(self._seen[kind][block]) for kind in ("student", "teacher"))
            teacher = teacher.detach()
            if block not in self._bases:
                self._bases[block] = principal(teacher, self.share)
            basis = self._bases[block]
            parts.append(torch.nn.functional.mse_loss(student @ basis, teacher @ basis))
        return torch.stack(parts).mean()

    def close(self) -> None:
        """Take the hooks off."""
        for hook in self._hooks:
            hook.remove()


def _by_channel(x: Tensor) -> Tensor:
    """[N, C, ...] -> [N * ..., C]"""
    return x.flatten(2).transpose(1, 2).flatten(0, 1) if x.ndim > 2 else x


def principal(rows: Tensor, share: float) -> Tensor:
    """The first ceil(share C) principal directions [C, k] of rows [M, C], orthonormal."""
    import torch

    centred = rows - rows.mean(0)
    _, vectors = torch.linalg.eigh(centred.T @ centred)  # ascending
    count = max(1, math.ceil(share * rows.shape[1]))
    basis: Tensor = vectors[:, -count:]
    return basis


METHOD = register(
    Method(
        name="binarize/binarydm",
        purpose="two binary bases a weight that come down to one, few-bit activations, low-rank mimicking",
        paper="binarydm",
        config=Config,
        apply=apply,
        needs=("training",),
        touches=("weights", "activations"),
        exports=("qconv", "qlinear"),
        status="trial",
        cost="one or two binary products a layer; the teacher's forward pass a step",
    )
)
