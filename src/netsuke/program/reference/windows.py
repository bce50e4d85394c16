"""Sliding windows over NHWC arrays: output sizes, patches for convolutions and pools, group-wise matrix products."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from netsuke.program.reference.call import Array, Call


@dataclass(frozen=True)
class Window:
    """A window of kernel (kh, kw) over an image of size (h, w) and the number of its positions, out = (oh, ow)."""

    kernel: tuple[int, int]
    strides: tuple[int, int]
    pads: tuple[int, int, int, int]
    dilations: tuple[int, int]
    size: tuple[int, int]
    out: tuple[int, int]


def output_size(size: int, kernel: int, stride: int, before: int, after: int, dilation: int, ceil: bool) -> int:
    """Positions of a window along one axis (format.md section 2); below 1 when the window does not fit."""
    span = size + before + after - ((kernel - 1) * dilation + 1)
    if span < 0 or size == 0:
        return 0
    count = span // stride + 1
    if ceil and span % stride and count * stride < size + before:
        count += 1  # one more window that hangs over the end, unless it would start in the padding behind the image
    return count


def window(call: Call, kernel: tuple[int, int]) -> Window:
    """The window of a convolution or pool over input 0; UsageError when it fits nowhere."""
    x = call.array(0)
    if x.ndim != 4:
        raise call.wrong("the input must be [N, H, W, C]")
    strides, pads = call.ints("strides"), call.ints("pads")
    dilations = call.ints("dilations") if "dilations" in call.attrs else [1, 1]
    ceil = bool(call.integer("ceil")) if "ceil" in call.attrs else False
    out = [output_size(x.shape[1 + i], kernel[i], strides[i], pads[i], pads[i + 2], dilations[i], ceil) for i in (0, 1)]
    if min(out) < 1:
        raise call.wrong("the window is larger than the padded image")
    top, left, bottom, right = pads
    return Window(
        kernel,
        (strides[0], strides[1]),
        (top, left, bottom, right),
        (dilations[0], dilations[1]),
        (x.shape[1], x.shape[2]),
        (out[0], out[1]),
    )


def taps(x: Array, win: Window, fill: float) -> Array:
    """Every window's elements, [N, oh, ow, kh, kw, C]; positions outside of the image hold `fill`. A read-only view."""
    (kh, kw), (sh, sw), (dh, dw), (oh, ow) = win.kernel, win.strides, win.dilations, win.out
    top, left = win.pads[:2]
    # Enough rows and columns for the last window, which may hang over the padding in ceil mode.
    bottom = max(0, (oh - 1) * sh + (kh - 1) * dh + 1 - top - win.size[0])
    right = max(0, (ow - 1) * sw + (kw - 1) * dw + 1 - left - win.size[1])
    padded = np.pad(x, ((0, 0), (top, bottom), (left, right), (0, 0)), constant_values=fill)
    n, h, w, c = padded.strides
    shape = (x.shape[0], oh, ow, kh, kw, x.shape[3])
    return np.lib.stride_tricks.as_strided(padded, shape, (n, h * sh, w * sw, h * dh, w * dw, c), writeable=False)


def convolve(x: Array, w: Array, win: Window, groups: int) -> Array:
    """sum over (kh, kw, channel of the group) of x * w; x f64 NHWC (0 is padded), w f64 [O, kh, kw, I/groups].

    One matrix product per group; images are taken one at a time to bound the memory of the patches.
    """
    (oh, ow), outputs = win.out, w.shape[0]
    y = np.zeros((x.shape[0], oh, ow, outputs))
    per_in, per_out = x.shape[3] // groups, outputs // groups
    if per_in == 1 and per_out == 1:  # depthwise: a sum over taps
        for image in range(x.shape[0]):
            y[image] = np.einsum("ijhwc,chw->ijc", taps(x[image : image + 1], win, 0)[0], w[..., 0])
        return y
    step = max(1, 2**22 // max(1, oh * ow * w[0].size * groups))  # about 32 MB of patches at a time
    for start in range(0, x.shape[0], step):
        patches = taps(x[start : start + step], win, 0)
        for g in range(groups):
            rows = patches[..., g * per_in : (g + 1) * per_in].reshape(-1, w[0].size)
            part = rows @ w[g * per_out : (g + 1) * per_out].reshape(per_out, -1).T
            y[start : start + step, ..., g * per_out : (g + 1) * per_out] = part.reshape(-1, oh, ow, per_out)
    return y
