"""Frozen binary layers as ONNX operators that the compiler keeps packed, emitted while a network is exported."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

from netsuke.nn.binarizer import Fixed, Learned
from netsuke.nn.binarizer_bases import FewBits

Terms = Sequence[tuple[Tensor, Tensor]]
MIDDLE = 128  # zero point of signed codes


def _op(name: str, inputs: Sequence[Tensor], shape: Any, dtype: torch.dtype, **attributes: Any) -> Tensor:
    made: Tensor = torch.onnx.ops.symbolic(name, tuple(inputs), attributes, dtype=dtype, shape=shape)
    return made


def float_codes(x: Tensor, rule: FewBits) -> Tensor:
    """(Clip,) QuantizeLinear to u8, DequantizeLinear: the values of the activation's codes."""
    assert isinstance(rule.scale, (Learned, Fixed))
    step = rule.scale.value.detach().reshape(())
    low, high = rule.levels.lo, rule.levels.hi
    zero = torch.tensor(MIDDLE if low < 0 else 0, dtype=torch.uint8)
    bounds = [torch.tensor(float(level)) * step for level in (low, high)]
    held = _op("Clip", (x, *bounds), x.shape, torch.float32)
    codes = _op("QuantizeLinear", (held, step, zero), x.shape, torch.uint8)
    return _op("DequantizeLinear", (codes, step, zero), x.shape, torch.float32)


def few_bits(x: Tensor, rule: FewBits, terms: Terms, product: Callable[[Tensor, Tensor], Tensor]) -> Tensor:
    """The sum over bases of the product with int8 codes behind DequantizeLinear, without the bias."""
    values = float_codes(x, rule)
    parts = []
    for levels, scale in terms:
        outputs = levels.shape[0]
        inputs = (levels.to(torch.int8), scale.reshape(-1).expand(outputs), torch.zeros(outputs, dtype=torch.int8))
        parts.append(product(values, _op("DequantizeLinear", inputs, levels.shape, torch.float32, axis=0)))
    total = parts[0]
    for part in parts[1:]:
        total = total + part
    return total
