"""Rules of docs/format.md for the one-bit operators, in the form of `netsuke.program.checks`."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import numpy as np

from netsuke.formats import spare_bits_clear, word_count
from netsuke.program.checks import Finding, NodeView, _code_clip, _finite, _shape, _weight_shape, _weights


def _no_nan(view: NodeView, index: int) -> Iterator[Finding]:
    threshold = view.constant(index)
    if threshold is not None and threshold.dtype == np.float32 and np.isnan(threshold).any():
        yield "threshold holds NaN", "", "numbers and infinities"


def _bit_vectors(view: NodeView, channels: int) -> Iterator[Finding]:
    """Shapes and contents of the per-channel constants of a one-bit layer."""
    for index, name in ((2, "mult"), (3, "bias"), (4, "slope"), (5, "shift"), (7, "threshold"), (8, "flip")):
        yield from _shape(view, index, name, (channels,))
        if index < 7:
            yield from _finite(view, index, name)


def _bit_outputs(view: NodeView) -> Iterator[Finding]:
    out, inputs, extra = str(view.attrs["out"]), view.node.inputs, len(view.node.outputs) > 1
    if out == "bits":
        given = [name for i, name in enumerate(("mult", "bias", "slope", "shift", "r"), 2) if inputs[i]]
        if given:
            yield "bits are made from the sums alone", ", ".join(given), "absent"
        if extra:
            yield "bits have no second output", len(view.node.outputs), "1"
    elif not inputs[2]:
        yield "mult is absent", out, "present for u8 and f32"
    wanted = "f32" if out == "f32" else "i32"
    if bool(inputs[7]) != (out == "bits" or extra):
        yield "a threshold belongs to packed outputs", inputs[7] or "absent", "present with bits, absent without"
    elif inputs[7] and view.dtypes[7] != wanted:
        yield "wrong dtype of threshold", view.dtypes[7], wanted
    else:
        yield from _no_nan(view, 7)
    if inputs[8] and not inputs[7]:
        yield "flip without a threshold", inputs[8], ""
    if view.dtypes[6] not in ("", out):
        yield "the residual must have the dtype of the output", view.dtypes[6], out


def _binary_layer(view: NodeView, rank: int) -> Iterator[Finding]:
    yield from _weight_shape(view, rank)
    yield from _code_clip(view)
    yield from _bit_outputs(view)
    shape, w = _weights(view, rank), view.constant(1)
    if shape is None or w is None:
        return
    if view.attrs.get("levels") == "bool" and view.number_or("pad_value", 0):
        yield "levels of 0 and 1 are padded with 0", view.attrs["pad_value"], "0"
    channels, groups = int(view.number("channels")), int(view.number_or("groups", 1))
    if channels % groups:
        yield "channels are not divisible by groups", f"{channels}, {groups}", ""
        return
    each = channels // groups
    if shape[-1] != word_count(each):
        yield "wrong number of words in w", shape[-1], f"{word_count(each)} for {each} channels"
    elif not spare_bits_clear(w, each):
        yield "bits of w behind the last channel are not 0", "", ""
    if int(np.prod(shape[1:-1])) * each > 2**24:
        yield "more than 2^24 products in a sum", "", ""
    yield from _bit_vectors(view, shape[0])


def _sign_pack(view: NodeView) -> Iterator[Finding]:
    threshold = view.constant(1)
    if threshold is None or threshold.ndim != 1 or not threshold.size:
        yield "wrong shape of threshold", None if threshold is None else threshold.shape, "(C,)"
        return
    wanted = "f32" if view.dtypes[0] == "f32" else "i32"
    if view.dtypes[1] != wanted:
        yield "wrong dtype of threshold", view.dtypes[1], wanted
    yield from _no_nan(view, 1)
    yield from _shape(view, 2, "flip", (threshold.shape[0],))


def _binary_product(view: NodeView) -> Iterator[Finding]:
    bits = view.attrs.get("out") == "bits"
    if bits != ("columns" in view.attrs):
        yield "columns belongs to out bits", view.attrs.get("columns", "absent"), "present with bits, absent without"
    if bits and view.dtypes[1] == "f32":
        yield "bits are made from sums of signs", "b f32", "b i64"
    if bits and view.number_or("mult", 1.0) != 1.0:
        yield "mult belongs to out f32", view.attrs["mult"], "1"
    if not bits and (view.number_or("threshold", 0) or view.number_or("relative", 0)):
        yield "threshold and relative belong to out bits", view.attrs.get("threshold", 0), "0"


BINARY_CHECKS: dict[str, Callable[[NodeView], Iterator[Finding]]] = {
    "sign_pack": _sign_pack,
    "bconv": lambda view: _binary_layer(view, 4),
    "blinear": lambda view: _binary_layer(view, 2),
    "bmatmul": _binary_product,
}
