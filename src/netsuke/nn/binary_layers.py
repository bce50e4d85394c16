"""Convolution and linear layers with binary or ternary weights and activations, and swapping them into a network.

    binarize(model, weights=make_weights, inputs=make_inputs, keep=("conv1", "fc"))
    set_progress(model, 0.4)      surrogates that sharpen during training
    freeze(model)                 levels and scales as buffers: what is exported and served

A layer multiplies levels first and scales afterwards, y = scale_w * scale_x * sum(level_w * level_x) + bias; padding
of a convolution is the number 0. Sums of levels are exact integers (below 2^24 terms), so every engine that adds
integers gets the same ones.
"""

from __future__ import annotations

import fnmatch
from collections.abc import Callable, Iterator, Sequence
from typing import Any, cast

import torch
from torch import Tensor, nn
from torch.nn import functional

from netsuke.core.errors import Problem, UsageError, near
from netsuke.nn.binarizer import Binarizer, Elastic, Learned, Token8
from netsuke.nn.binarizer_bases import FewBits
from netsuke.nn.binary_export import few_bits

Layer = nn.Conv2d | nn.Linear
MakeBinarizer = Callable[[Layer], Binarizer | None]
LARGEST_CODE = 127
EXACT_SUM = 2**24  # f32 holds every integer up to here


@torch.no_grad()
def check_domain(x: Tensor, binarizer: Binarizer) -> None:
    """UsageError when x holds a NaN or an infinity (a sign would hide it: the loss stays a number), or when levels that
    start at 0 and have not seen data yet are given negative numbers."""
    if not bool(torch.isfinite(x.sum())) and not bool(torch.isfinite(x).all()):
        bad = int((~torch.isfinite(x)).sum())
        hint = "a smaller rate, or clip gradients"
        raise UsageError(Problem("activations to binarize are NaN or infinite", got=f"{bad} of {x.numel()}", hint=hint))
    unsigned = isinstance(binarizer.levels, Elastic) and binarizer.levels.lo == 0
    if unsigned and isinstance(binarizer.scale, Learned) and not bool(binarizer.scale.ready) and bool((x < 0).any()):
        got, hint = f"{int((x < 0).sum())} of {x.numel()} below 0", "signed levels, or a ReLU in front"
        raise UsageError(Problem("activations outside the levels of their binarizer", "", got, "0 and above", hint))


class BinaryLayer(nn.Module):
    """A convolution or linear layer whose weights, and inputs where a binarizer is given, are levels times scales.

    layer    the layer to replace: its weight (latent, trained), bias and geometry are taken over
    weights  binarizer of the weight
    inputs   binarizer of the input, or None: the input is used as it is
    """

    def __init__(self, layer: Layer, weights: Binarizer, inputs: Binarizer | None) -> None:
        super().__init__()
        self.weight, self.bias = layer.weight, layer.bias
        self.weights, self.inputs = weights, inputs
        self.conv = isinstance(layer, nn.Conv2d)
        self.geometry: dict[str, Any] = {}
        if isinstance(layer, nn.Conv2d):
            padding = layer.padding if isinstance(layer.padding, str) else tuple(layer.padding)
            self.geometry = {"stride": layer.stride, "padding": padding, "dilation": layer.dilation}
            self.geometry["groups"] = layer.groups

    def extra_repr(self) -> str:
        kind = "conv" if self.conv else "linear"
        return f"{kind} {tuple(self.weight.shape)}, {'binary' if self.inputs else 'float'} input"

    def product(self, x: Tensor, w: Tensor) -> Tensor:
        """The product of levels, without scales and bias."""
        if self.conv:
            return functional.conv2d(x, w, None, **self.geometry)
        return functional.linear(x, w)

    def _factor(self, scale: Tensor) -> Tensor:
        """A scale of the weight, scalar or one per output channel, as it stands against the output."""
        if scale.numel() == 1:
            return scale.reshape(())
        return scale.reshape(1, -1, 1, 1) if self.conv else scale.reshape(-1)

    def weight_terms(self) -> list[tuple[Tensor, Tensor]]:
        return self.weights.terms(self.weight)

    def forward(self, x: Tensor) -> Tensor:
        scale: Tensor | None = None
        if self.inputs is not None:
            if self.training:
                check_domain(x, self.inputs)
            ((x, scale),) = self.inputs.terms(x)
        terms = self.weight_terms()
        first = isinstance(self.inputs, Token8)  # wlinear multiplies both scales first (docs/numerics.md section 12)
        factors = [self._factor(s) if scale is None or not first else scale * self._factor(s) for _, s in terms]
        parts = [self.product(x, w) * factor for (w, _), factor in zip(terms, factors, strict=True)]
        y = parts[0] if len(parts) == 1 else torch.stack(parts).sum(0)
        y = y if scale is None or first else y * scale
        if self.bias is None:
            return y
        return y + (self.bias.reshape(1, -1, 1, 1) if self.conv else self.bias)


class FrozenTerms(nn.Module):
    """Levels and scale of one basis, as buffers."""

    levels: Tensor
    scale: Tensor

    def __init__(self, levels: Tensor, scale: Tensor) -> None:
        super().__init__()
        self.register_buffer("levels", levels.detach().clone())
        self.register_buffer("scale", scale.detach().clone())


class FrozenLayer(BinaryLayer):
    """A binary layer after training: its levels and scales are constants, the latent weight is gone."""

    def __init__(self, trained: BinaryLayer) -> None:
        nn.Module.__init__(self)
        self.conv, self.geometry = trained.conv, trained.geometry
        self.bias, self.inputs = trained.bias, trained.inputs
        if not bool(torch.isfinite(trained.weight).all()):
            raise UsageError(Problem("latent weights are NaN or infinite", got=str(tuple(trained.weight.shape))))
        if isinstance(self.inputs, FewBits) and not self.inputs.decided:
            raise UsageError(Problem("activations have no scale yet", hint="train before freezing"))
        with torch.no_grad():
            terms = trained.weight_terms()
            self.bases = nn.ModuleList(FrozenTerms(w, s) for w, s in terms)
            whole = [bool((w == w.round()).all()) and float(w.abs().max()) <= LARGEST_CODE for w, _ in terms]
            self.whole, self.as_codes = all(whole), not self.conv and whole == [True]

    def extra_repr(self) -> str:
        return f"frozen, {len(self.bases)} basis"

    def weight_terms(self) -> list[tuple[Tensor, Tensor]]:
        return [(basis.levels, basis.scale) for basis in cast("Sequence[FrozenTerms]", self.bases)]

    def forward(self, x: Tensor) -> Tensor:
        if torch.compiler.is_exporting() and self.whole and isinstance(self.inputs, FewBits):
            y = few_bits(x, self.inputs, self.weight_terms(), self.product)
            if self.bias is None:
                return y
            return y + (self.bias.reshape(1, -1, 1, 1) if self.conv else self.bias)
        if torch.compiler.is_exporting() and self.as_codes:
            if self.inputs is None:
                return self._exported(x, 0)
            if isinstance(self.inputs, Token8):
                return self._exported(x, 4)
        return super().forward(x)

    def _exported(self, x: Tensor, level: int) -> Tensor:
        """Integer weights beside float inputs (level 0), or inputs of 8 bits a vector (4): what becomes `wlinear`."""
        ((levels, scale),) = self.weight_terms()
        outputs, depth = levels.shape
        codes = (levels.to(torch.int16) + 128).to(torch.uint8).reshape(outputs, 1, depth)
        scales = scale.reshape(-1).expand(outputs).reshape(outputs, 1)
        attrs: dict[str, Any] = {"K": depth, "N": outputs, "bits": 8, "block_size": depth, "accuracy_level": level}
        name, size = "com.microsoft::MatMulNBits", (*x.shape[:-1], outputs)
        y = torch.onnx.ops.symbolic(name, (x, codes, scales), attrs, dtype=x.dtype, shape=size, version=1)
        return y if self.bias is None else y + self.bias


def layers(model: nn.Module) -> Iterator[tuple[str, BinaryLayer]]:
    """(name, layer) of every binary layer."""
    for name, module in model.named_modules():
        if isinstance(module, BinaryLayer):
            yield name, module


def candidates(model: nn.Module) -> dict[str, Layer]:
    """Every Conv2d and Linear by name, in the order of definition."""
    return {n: m for n, m in model.named_modules() if isinstance(m, nn.Conv2d | nn.Linear)}


def keep_edges(model: nn.Module) -> tuple[str, ...]:
    """The usual choice of what stays float: first and last layer, and 1x1 shortcuts with a stride."""
    table = candidates(model)
    names = list(table)
    shortcuts = [
        n for n, m in table.items() if isinstance(m, nn.Conv2d) and m.kernel_size == (1, 1) and max(m.stride) > 1
    ]
    return tuple(dict.fromkeys([*names[:1], *names[-1:], *shortcuts]))


def _kept(table: dict[str, Layer], keep: Sequence[str]) -> set[str]:
    kept: set[str] = set()
    problems = []
    for pattern in keep:
        found = fnmatch.filter(table, pattern)
        kept.update(found)
        if not found:
            problems.append(Problem("no layer matches", got=pattern, allowed=near(pattern, table)))
    if problems:
        raise UsageError(problems)
    return kept


def _place(model: nn.Module, name: str, module: nn.Module) -> None:
    parent, _, leaf = name.rpartition(".")
    setattr(model.get_submodule(parent), leaf, module)


def binarize(
    model: nn.Module, *, weights: MakeBinarizer, inputs: MakeBinarizer, keep: Sequence[str] | None = None
) -> nn.Module:
    """Replace convolutions and linear layers in place by binary ones; returns the model.

    weights, inputs  make the binarizers of a layer; `inputs` may give None
    keep             patterns of layer names that stay float; None: `keep_edges`

    Raises UsageError for patterns that match nothing, for padding that is not zeros, for layers whose sums f32 does
    not hold exactly, and when nothing is left to binarize.
    """
    table = candidates(model)
    kept = _kept(table, keep_edges(model) if keep is None else keep)
    chosen = {n: m for n, m in table.items() if n not in kept}
    if not chosen:
        raise UsageError(Problem("no layer is left to binarize", got=f"{len(table)} layers, {len(kept)} kept float"))
    problems = [Problem("padding", n, str(m.padding_mode), "zeros") for n, m in chosen.items() if _padded_otherwise(m)]
    problems += [
        Problem("terms of a sum", n, str(m.weight[0].numel()), f"at most {EXACT_SUM}")
        for n, m in chosen.items()
        if m.weight[0].numel() > EXACT_SUM
    ]
    if problems:
        raise UsageError(problems)
    for name, layer in chosen.items():
        rule = weights(layer)
        if rule is not None:
            _place(model, name, BinaryLayer(layer, rule, inputs(layer)))
    return model


def _padded_otherwise(layer: Layer) -> bool:
    return isinstance(layer, nn.Conv2d) and layer.padding_mode != "zeros"


def set_progress(model: nn.Module, progress: float) -> None:
    """Tell every binarizer how far training is, 0 to 1. UsageError outside."""
    if not 0 <= progress <= 1:
        raise UsageError(Problem("progress of training", got=str(progress), allowed="0 to 1"))
    for module in model.modules():
        if isinstance(module, Binarizer):
            module.at(progress)


def freeze(model: nn.Module) -> nn.Module:
    """Replace every binary layer and trained scale in place by its frozen form; returns the model in eval mode."""
    from netsuke.nn.binarizer import Fixed

    for name, layer in list(layers(model)):
        if not isinstance(layer, FrozenLayer):
            _place(model, name, FrozenLayer(layer))
    for name, module in list(model.named_modules()):
        if isinstance(module, Learned):
            _place(model, name, Fixed(module))
    return model.eval()
