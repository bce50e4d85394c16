"""One-bit operators in torch (numerics.md section 10). Packed words are int64 tensors: no gradient passes through bits,
it passes through the sums of a layer to its scales, its residual and nothing before."""

from __future__ import annotations

import torch
import torch.nn.functional as functional
from torch import Tensor

from netsuke.nn import integer
from netsuke.program.emulation.call import Call, rule

_WORD = 64
_THRESHOLD = 7
_FLIP = 8


def pack_bits(bits: Tensor) -> Tensor:
    """bool [..., C] -> int64 [..., ceil(C / 64)]."""
    channels = bits.shape[-1]
    width = (channels + _WORD - 1) // _WORD * _WORD
    wide = functional.pad(bits.to(torch.int64), (0, width - channels))
    shifts = torch.arange(_WORD, device=bits.device)
    # A word is the sum of 64 disjoint bits; bit 63 makes it negative, which int64 addition wraps to on purpose.
    return (wide.reshape(*bits.shape[:-1], width // _WORD, _WORD) << shifts).sum(dim=-1)


def signs(words: Tensor, channels: int) -> Tensor:
    """int64 [..., W] -> f32 [..., channels] of +1 and -1."""
    shifts = torch.arange(_WORD, device=words.device)
    bits = (words.unsqueeze(-1) >> shifts) & 1
    flat = bits.reshape(*words.shape[:-1], words.shape[-1] * _WORD)[..., :channels]
    return flat.to(torch.float32) * 2 - 1


def _flipped(call: Call, bits: Tensor, index: int) -> Tensor:
    flip = call.inputs[index]
    return bits if flip is None else bits ^ flip.to(torch.bool)


@rule("sign_pack")
def _sign_pack(call: Call) -> list[Tensor]:
    return [pack_bits(_flipped(call, call.tensor(0) >= call.tensor(1), 2))]


def _sums(call: Call) -> Tensor:
    channels = call.integer("channels")
    x = signs(call.tensor(0), channels)
    if call.word("levels") == "bool":
        x = (x + 1) / 2
    if "strides" not in call.attrs:
        return integer.linear(x, signs(call.tensor(1), channels), channels)
    groups = call.integer("groups")
    w = signs(call.tensor(1), channels // groups)
    top, left, bottom, right = call.ints("pads")
    x = functional.pad(x, (0, 0, left, right, top, bottom), value=float(call.integer("pad_value")))
    bound = int(w[0].numel())
    return integer.convolve(x, w, call.ints("strides"), [0] * 4, call.ints("dilations"), groups, bound)


def _real(call: Call, acc: Tensor) -> Tensor:
    t = acc.to(torch.float32) * call.tensor(2)
    if call.inputs[3] is not None:
        t = t + call.tensor(3)
    residual = call.inputs[6]
    if residual is not None:
        if call.dtypes[6] == "u8":
            residual = (residual - call.integer("r_zero")) * integer.alone(residual, call.number("r_mult"))
        t = t + residual
    if call.inputs[4] is not None:
        t = torch.where(t > 0, t, t * call.tensor(4))
    return t if call.inputs[5] is None else t + call.tensor(5)


@rule("bconv", "blinear")
def _binary_layer(call: Call) -> list[Tensor]:
    acc = _sums(call)
    if call.word("out") == "bits":
        return [pack_bits(_flipped(call, acc >= call.tensor(_THRESHOLD), _FLIP))]
    t = _real(call, acc)
    y = integer.quantize(t, 1.0, **call.clip()) if call.word("out") == "u8" else t
    if len(call.out_dtypes) == 1:
        return [y]
    return [y, pack_bits(_flipped(call, y >= call.tensor(_THRESHOLD), _FLIP))]


@rule("bmatmul")
def _binary_product(call: Call) -> list[Tensor]:
    channels, b = call.integer("channels"), call.tensor(1)
    a = signs(call.tensor(0), channels)
    if call.word("levels") == "bool":
        a = (a + 1) / 2
    if call.dtypes[1] == "i64":
        b = signs(b, channels).transpose(-1, -2)
    acc = a @ b  # signs: exact, a sum of at most 2^24 units; numbers: to a tolerance
    if call.word("out") == "f32":
        return [acc * call.number("mult")]
    exact = acc.to(torch.int64)
    limit = exact.amax(dim=-1, keepdim=True) if call.integer("relative") else 0
    return [pack_bits(exact >= limit + call.integer("threshold"))]
