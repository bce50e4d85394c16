"""The first table of a layer: k-means of its weights in units of their scale."""

from __future__ import annotations

import numpy as np

from netsuke.core.seeds import generator
from netsuke.methods.codebook._codebook import Codebook, kmeans
from netsuke.methods.quantize._codes import weight_scales
from netsuke.methods.quantize._context import Context
from netsuke.methods.quantize._graph import Array, along, number
from netsuke.methods.quantize._layer import Layer


def start(context: Context, layer: Layer, bits: int, groups: int = 0) -> None:
    """2^bits entries on the grid of 8-bit codes; sets scales and codes of the layer."""
    weight = number(layer.weight)
    assert weight is not None
    rng = generator(context.seed, "jlcm", layer.name)
    scales = weight_scales(weight, layer.axis)
    if groups and layer.axis is not None:
        scales = grouped(scales, groups, rng)
    exact = weight.astype(np.float64) / along(scales.astype(np.float64), layer.axis or 0, weight.ndim)
    book = kmeans(exact.reshape(-1, 1), 2**bits, rng)
    entries = np.clip(np.rint(book.entries), -127, 127).astype(np.float32)
    context.scales[layer.name] = scales
    context.codes[layer.name] = Codebook(entries, book.indices).decode().reshape(weight.shape).astype(np.int8)


def grouped(scales: Array, groups: int, rng: np.random.Generator) -> Array:
    """Channels in groups of similar scale (k-means of the logarithms), each with the largest scale of its group."""
    if len(np.unique(scales)) <= groups:
        return scales
    found = kmeans(np.log2(scales.astype(np.float64))[:, None], groups, rng).indices
    largest = np.array([scales[found == g].max(initial=0) for g in range(groups)], np.float32)
    return np.asarray(largest[found], np.float32)
