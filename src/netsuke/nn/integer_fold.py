"""Normalizations folded into the integer layers in front of them, when training is over.

    codes stay, s_w[o] -> s_w[o] |f[o]|, signs of codes follow f, bias[o] -> bias[o] f[o] + shift[o]

with y = f x + shift the normalization in eval mode: f = gamma / sqrt(var + eps), or gamma / (dev + eps) in L1 form.
In exact arithmetic nothing changes; in f32 the layer's own product rounds once instead of twice. What comes out is what
`netsuke.methods.integer._graph` compiles, bit for bit.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn

from netsuke.core.errors import Problem, UnsupportedError
from netsuke.nn.integer_train import IntegerLayer
from netsuke.nn.l1_norm import L1Norm2d

_TOLERANCE = 1e-3


def affine_of(norm: nn.Module) -> tuple[Tensor, Tensor]:
    """(f, shift) in float64 of a BatchNorm2d or L1Norm2d in eval mode."""
    if isinstance(norm, L1Norm2d):
        factor = norm.weight.detach().double() / (norm.running_dev.double() + norm.eps)
        return factor, norm.bias.detach().double() - norm.running_mean.double() * factor
    assert isinstance(norm, nn.BatchNorm2d)
    assert norm.running_mean is not None
    assert norm.running_var is not None
    one = torch.ones_like(norm.running_mean)
    gamma, beta = (one, one * 0) if norm.weight is None else (norm.weight.detach(), norm.bias.detach())
    factor = gamma.double() / (norm.running_var.double() + norm.eps).sqrt()
    return factor, beta.double() - norm.running_mean.double() * factor


def _pairs(model: nn.Module, example: Tensor) -> tuple[list[tuple[str, str]], Tensor]:
    """(layer, normalization that reads its output) by name, and the network's output."""
    outputs: dict[int, tuple[str, Tensor]] = {}
    found: list[tuple[str, str]] = []

    def after(name: str) -> Any:
        return lambda _module, _inputs, output: outputs.__setitem__(id(output), (name, output))

    def before(name: str) -> Any:
        def look(_module: nn.Module, inputs: tuple[Tensor, ...]) -> None:
            made = outputs.get(id(inputs[0]))
            if made is not None and made[1] is inputs[0]:
                found.append((made[0], name))

        return look

    handles = []
    for name, module in model.named_modules():
        if isinstance(module, IntegerLayer):
            handles.append(module.register_forward_hook(after(name)))
        elif isinstance(module, nn.BatchNorm2d | L1Norm2d):
            handles.append(module.register_forward_pre_hook(before(name)))
    try:
        with torch.no_grad():
            result: Tensor = model(example)
    finally:
        for handle in handles:
            handle.remove()
    return found, result


def _unserved(layer: Any) -> bool:
    return layer.config.weight_bits > 8 or layer.config.fraction is not None


def _fold(layer: IntegerLayer, norm: nn.Module) -> None:
    factor, shift = affine_of(norm)
    q = layer.quantize_weight(layer.weight)
    scale = (q.scale.double() * factor).float()
    rows = q.codes.float() * scale.view(-1, 1, 1, 1)
    values = rows.permute(0, 3, 1, 2) if layer.weight.ndim == 4 else rows.reshape(layer.weight.shape)
    old = torch.zeros_like(shift) if layer.bias is None else layer.bias.detach().double()
    layer.weight = nn.Parameter(values.contiguous())
    layer.bias = nn.Parameter((old * factor + shift).float())
    layer.config = replace(layer.config, master_bits=0)  # channels have scales of their own now: no grid holds them


def fold_norms_(model: nn.Module, example: Tensor) -> nn.Module:
    """Fold every normalization that directly follows an integer layer, in place, and return the network in eval mode.

    example: an input, f32 [N, ...]; one pass finds what follows what, a second one checks that nothing else read a
    folded layer's output. Raises UnsupportedError, with the network unchanged, when the result would differ by more
    than 1e-3 of the largest output; layers of more than 8 bits and non-finite statistics are refused by name.
    """
    model.eval()
    pairs, expected = _pairs(model, example)
    modules = dict(model.named_modules())
    problems = [
        Problem(what, where=norm)
        for layer, norm in pairs
        for what, bad in (
            ("its layer has more than 8 bits or fixed point, which no engine layer has", _unserved(modules[layer])),
            ("its statistics are not finite", not all(bool(torch.isfinite(v).all()) for v in affine_of(modules[norm]))),
        )
        if bad
    ]
    if problems:
        raise UnsupportedError(problems, "these normalizations cannot be folded")
    saved = {layer: (modules[layer].weight, modules[layer].bias, modules[layer].config) for layer, _ in pairs}
    for layer, norm in pairs:
        _fold(modules[layer], modules[norm])
        _replace(model, norm, nn.Identity())
    with torch.no_grad():
        result = model(example)
    if float((result - expected).abs().max()) > _TOLERANCE * float(expected.abs().max()):
        for layer, norm in pairs:
            modules[layer].weight, modules[layer].bias, modules[layer].config = saved[layer]
            _replace(model, norm, modules[norm])
        raise UnsupportedError(Problem("folding changes the network: another layer reads what a normalization reads"))
    return model


def _replace(model: nn.Module, name: str, new: nn.Module) -> None:
    parent, _, leaf = name.rpartition(".")
    setattr(model.get_submodule(parent) if parent else model, leaf, new)
