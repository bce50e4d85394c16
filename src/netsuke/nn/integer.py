"""Integer arithmetic of docs/numerics.md in torch, bit for bit, with straight-through gradients.

Codes and accumulators are integer-valued float tensors, so gradients can flow: rounding passes the gradient through,
the clamp passes it inside its limits only. Every function is eager torch: a compiler that contracts `a * b + c` into
one rounding would change bits.
"""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as functional
from torch import Tensor

# Integers up to 2^24 are exact in f32, up to 2^53 in f64; a sum whose bound is below is exact in every order.
F32_EXACT = 2**24


class _RoundStraightThrough(torch.autograd.Function):
    @staticmethod
    def forward(_: Any, v: Tensor) -> Tensor:
        return torch.round(v)  # halves to even

    @staticmethod
    def backward(_: Any, *gradients: Tensor) -> Tensor:
        return gradients[0]


class _ValueOf(torch.autograd.Function):
    """The value of the first tensor with the gradient of the second."""

    @staticmethod
    def forward(_: Any, *tensors: Tensor) -> Tensor:
        return tensors[0]

    @staticmethod
    def backward(_: Any, *gradients: Tensor) -> tuple[None, Tensor]:
        return None, gradients[0]


def rne(v: Tensor) -> Tensor:
    """Nearest integer, halves to even; the gradient passes unchanged."""
    return _RoundStraightThrough.apply(v)  # type: ignore[no-untyped-call]


def clamp(v: Tensor, lo: float, hi: float) -> Tensor:
    """`t = v > lo ? v : lo; t < hi ? t : hi` (torch.clamp would keep a NaN); gradient inside the limits only."""
    low, high = v.new_tensor(lo), v.new_tensor(hi)
    t = torch.where(v > low, v, low)
    return torch.where(t < high, t, high)


def alone(like: Tensor, value: float) -> Tensor:
    """A number as a tensor that broadcasts against `like`: torch may replace a division by a Python number, or by a
    tensor without dimensions, by a multiplication with its reciprocal, which gives other codes."""
    return like.new_full((1,) * like.ndim, value)


def _to_code(t: Tensor, zero: int, lo: int, hi: int) -> Tensor:
    return rne(clamp(t, lo - zero, hi - zero)) + zero


def quantize(x: Tensor, scale: float | Tensor, zero: int, lo: int = 0, hi: int = 255) -> Tensor:
    """f32 [...] -> codes as f32 (numerics.md section 2)."""
    divisor = scale if isinstance(scale, Tensor) else alone(x, scale)
    return _to_code(x / divisor, zero, lo, hi)


def dequantize(q: Tensor, scale: float | Tensor, zero: int) -> Tensor:
    """Codes as f32 [...] -> f32."""
    factor = scale if isinstance(scale, Tensor) else alone(q, scale)
    return (q - zero) * factor


def fake_quantize(x: Tensor, scale: float | Tensor, zero: int, lo: int = 0, hi: int = 255) -> Tensor:
    """f32 -> the f32 that its code stands for: what quantization-aware training puts behind an activation."""
    return dequantize(quantize(x, scale, zero, lo, hi), scale, zero)


def exact_dtype(bound: int) -> torch.dtype:
    """f32 when every partial sum within `bound` is exact in it, else f64."""
    return torch.float32 if bound < F32_EXACT else torch.float64


def convolve(
    x: Tensor,
    w: Tensor,
    strides: list[int],
    pads: list[int],
    dilations: list[int],
    groups: int,
    bound: int,
) -> Tensor:
    """Exact sums of a convolution: x integers NHWC (padded with 0), w integers [O, kh, kw, I/groups] -> NHWC.

    Patches and a matrix product instead of torch's convolution, which may take inexact Winograd or FFT paths.
    bound: the largest sum of absolute values (accumulator bound); chooses f32 or f64.
    """
    dtype = exact_dtype(bound)
    top, left, bottom, right = pads
    outputs, kh, kw, per_in = w.shape
    image = functional.pad(x.to(dtype).permute(0, 3, 1, 2), (left, right, top, bottom))
    n, _, h, wide = image.shape
    oh = (h - (kh - 1) * dilations[0] - 1) // strides[0] + 1
    ow = (wide - (kw - 1) * dilations[1] - 1) // strides[1] + 1
    patches = functional.unfold(image, (kh, kw), dilation=(dilations[0], dilations[1]), stride=(strides[0], strides[1]))
    rows = w.to(dtype).permute(0, 3, 1, 2).reshape(groups, outputs // groups, per_in * kh * kw)
    sums = rows @ patches.reshape(n, groups, per_in * kh * kw, oh * ow)
    return sums.reshape(n, outputs, oh, ow).permute(0, 2, 3, 1)


def linear(x: Tensor, w: Tensor, bound: int) -> Tensor:
    """Exact sums of a matrix product: x integers [..., K], w integers [N, K] -> integers [..., N]."""
    dtype = exact_dtype(bound)
    return x.to(dtype) @ w.to(dtype).T


def requantize(
    acc: Tensor,
    mult: Tensor,
    bias: Tensor | None = None,
    residual: Tensor | None = None,
    r_mult: float = 0.0,
    *,
    zero: int,
    lo: int = 0,
    hi: int = 255,
) -> Tensor:
    """Accumulators (exact, f32 or f64, last axis = channel) -> codes as f32 (section 4). residual: `r - r_zero`."""
    t = acc.to(torch.float32) * mult
    if bias is not None:
        t = t + bias
    if residual is not None:
        t = t + residual * alone(residual, r_mult)
    return _to_code(t, zero, lo, hi)


def requantize_f32(
    acc: Tensor,
    mult: Tensor,
    bias: Tensor | None = None,
    residual: Tensor | None = None,
    *,
    flo: float = -float("inf"),
    fhi: float = float("inf"),
) -> Tensor:
    """Accumulators -> f32 (section 4, out = "f32"). residual is f32 and added as it is."""
    t = acc.to(torch.float32) * mult
    if bias is not None:
        t = t + bias
    if residual is not None:
        t = t + residual
    return clamp(t, flo, fhi)


def fma(a: Tensor, b: float, c: Tensor | float) -> Tensor:
    """a * b + c in f32, rounded once (`netsuke.formats.fma`)."""
    d = c.double() if isinstance(c, Tensor) else torch.full_like(a, c).double()
    p = a.double() * torch.full_like(a, b).double()
    s = p + d
    part = s - p
    error = (p - (s - part)) + (d - part)
    even = (s.view(torch.int64) & 1) == 0
    beside = torch.nextafter(s, torch.where(error > 0, torch.inf, -torch.inf).to(s))
    return torch.where((error != 0) & even, beside, s).float()


def shift_rne(p: Tensor, e: Tensor) -> Tensor:
    """p / 2^e rounded to nearest even on int64, 1 <= e <= 62 (section 5)."""
    floor = p >> e
    rem = p - (floor << e)
    half = torch.ones_like(e) << (e - 1)
    return floor + ((rem > half) | ((rem == half) & ((floor & 1) == 1))).to(torch.int64)


def requantize_dyadic(
    acc: Tensor,
    m: Tensor,
    e: Tensor,
    residual: Tensor | None = None,
    r_m: int = 0,
    r_e: int = 62,
    *,
    zero: int,
    lo: int = 0,
    hi: int = 255,
) -> Tensor:
    """Accumulators -> codes as f32 with integers only (section 5). m, e int64 [O]; residual is `r - r_zero`.

    The gradient is that of `acc * m * 2^-e + residual * r_m * 2^-r_e`, clamped.
    """
    v = shift_rne(acc.detach().to(torch.int64) * m, e)
    if residual is not None:
        power = torch.tensor([r_e], dtype=torch.int64, device=acc.device)
        v = v + shift_rne(residual.detach().to(torch.int64) * r_m, power)
    codes = torch.clamp(v + zero, lo, hi).to(torch.float32)
    if not (acc.requires_grad or (residual is not None and residual.requires_grad)):
        return codes
    real = acc * torch.ldexp(m.to(acc.dtype), -e)
    if residual is not None:
        real = real + residual * (r_m * 2.0**-r_e)
    real = clamp(real + zero, lo, hi).to(torch.float32)
    return _ValueOf.apply(codes, real)  # type: ignore[no-untyped-call]


def quantize_activations(x: Tensor, group: int) -> tuple[Tensor, Tensor]:
    """f32 [..., K] -> codes [..., G, group] and scales [..., G] (numerics.md section 12); the gradient of a code passes
    through its rounding, scales are taken as given."""
    depth = x.shape[-1]
    group = min(group, depth)
    count = -(-depth // group)
    parts = functional.pad(x, (0, count * group - depth)).reshape(*x.shape[:-1], count, group)
    finite = torch.isfinite(parts).all(dim=-1)
    top = torch.where(finite, parts.detach().abs().amax(dim=-1), x.new_zeros(1))
    used = top >= 2.0**-100
    safe = torch.where(used, top, x.new_ones(1))
    steps = x.new_full((1,), 127.0)
    scale = torch.where(finite, torch.where(used, safe / steps, x.new_zeros(1)), x.new_full((1,), torch.nan))
    inverse = torch.where(used, steps / safe, x.new_zeros(1))
    inside = torch.where((finite & used)[..., None], parts, x.new_zeros(1))
    t = inside * inverse[..., None]
    # The clamp only catches a product that rounds to above 127, so the gradient passes everywhere.
    return _ValueOf.apply(rne(clamp(t.detach(), -127, 127)), t), scale  # type: ignore[no-untyped-call]


def dynamic_linear(x: Tensor, w: Tensor, scale: Tensor, zero: Tensor | None, bias: Tensor | None, group: int) -> Tensor:
    """f32 [..., K] by weight codes [N, K] in groups with scales [N, G]: compute = "s8" of numerics.md section 12."""
    codes, x_scale = quantize_activations(x, group)
    weights = functional.pad(w, (0, codes.shape[-1] * codes.shape[-2] - w.shape[-1]))
    weights = weights.reshape(w.shape[0], codes.shape[-2], codes.shape[-1])
    if zero is not None:
        weights = weights - zero[..., None]
    acc = x.new_zeros((*x.shape[:-1], w.shape[0]))
    for g in range(weights.shape[1]):
        sums = codes[..., g, :].to(torch.float64) @ weights[:, g].to(torch.float64).T  # exact: below 2^31
        acc = acc + sums.to(torch.float32) * (x_scale[..., g, None] * scale[:, g])
    return acc if bias is None else acc + bias
