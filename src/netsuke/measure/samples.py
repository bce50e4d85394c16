"""How good generated samples are: the Frechet distance of features, and whether a classifier reads the class asked for.

Heusel et al. 2017 (arXiv 1706.08500) with a small classifier of ours in the place of Inception. 8x8 digits: features
are the 32 pooled channels of the shipped `digits_cnn`, the reference is the 1,797 digits. 28x28 images: a `fashion_cnn`
trained on them (`fashion_reader`), features are what its last layer reads, the reference is given. Distances of two
readers do not compare.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from typing import Any

import numpy as np
import numpy.typing as npt

from netsuke.core.errors import Problem, UsageError

Array = npt.NDArray[Any]


@dataclass(frozen=True)
class Quality:
    """distance  Frechet distance to the reference; 0 for the same distribution
    accuracy  share of samples that the classifier gives the class they were asked to be"""

    distance: float
    accuracy: float


def frechet_distance(x: Array, y: Array) -> float:
    """|mean x - mean y|^2 + tr(Cx + Cy - 2 (Cx Cy)^(1/2)) of features [N, D] and [M, D], in binary64.

    UsageError when there are fewer samples than features: the covariance would say nothing.
    """
    problems = [
        Problem("too few samples for a covariance", got=f"{len(part)} of {part.shape[-1]} features", allowed="more")
        for part in (x, y)
        if part.ndim != 2 or len(part) <= part.shape[1]
    ]
    if x.shape[1:] != y.shape[1:]:
        problems.append(Problem("features of different widths", got=f"{x.shape[1:]} and {y.shape[1:]}"))
    if problems:
        raise UsageError(problems)
    a, b = x.astype(np.float64), y.astype(np.float64)
    ca, cb = (np.atleast_2d(np.cov(part, rowvar=False)) for part in (a, b))
    root = _root(ca)
    cross = np.linalg.eigvalsh(root @ cb @ root)  # similar to Cx Cy, but symmetric: real eigenvalues
    mean = float(((a.mean(0) - b.mean(0)) ** 2).sum())
    return max(0.0, mean + float(np.trace(ca) + np.trace(cb) - 2 * np.sqrt(np.clip(cross, 0, None)).sum()))


def _root(c: Array) -> Array:
    values, vectors = np.linalg.eigh(c)
    made: Array = (vectors * np.sqrt(np.clip(values, 0, None))) @ vectors.T
    return made


@dataclass(frozen=True)
class Reader:
    """A classifier of images of one shape.

    hidden  f32 [N, *shape] in [0, 1] -> features [N, D]; logits: features -> [N, classes]. Both on tensors
    """

    shape: tuple[int, ...]
    hidden: Callable[[Any], Any]
    logits: Callable[[Any], Any]


@cache
def digits_reader() -> Reader:
    """The shipped network, for 8x8 digits."""
    from netsuke.models import build

    network: Any = build("digits_cnn")
    return Reader((1, 8, 8), lambda x: network.block2(network.block1(network.stem(x))).mean((2, 3)), network.head)


def fashion_reader(network: Any, data: str = "fashion-mnist") -> Reader:
    """A trained `fashion_cnn` (python -m netsuke.models.train fashion); data: whose mean and deviation it expects."""
    from netsuke.data.builtin import TABLE

    made = TABLE[data].preprocess
    mean, std, network = made.mean[0], made.std[0], network.eval()
    return Reader((1, 28, 28), lambda x: network.hidden((x - mean) / std), network.classifier[2:])


def features(images: Array, reader: Reader | None = None) -> tuple[Array, Array]:
    """Features [N, D] and predicted classes [N] of images in [-1, 1], of the reader's shape (default: digits);
    UsageError for another shape."""
    import torch

    reader = reader or digits_reader()
    if images.ndim != 4 or images.shape[1:] != reader.shape:
        allowed = f"[N, {', '.join(str(n) for n in reader.shape)}]"
        raise UsageError(Problem("images of another shape", got=str(images.shape), allowed=allowed))
    x = torch.from_numpy(np.clip(np.asarray(images, np.float32) * 0.5 + 0.5, 0, 1))
    with torch.no_grad():
        found = torch.cat([reader.hidden(part) for part in x.split(256)])
        return found.numpy(), reader.logits(found).argmax(1).numpy()


@cache
def _digits() -> Array:
    from netsuke.data import load_data

    return features(np.concatenate([2 * x - 1 for x, _ in load_data("digits:all").batches(256)]))[0]


def digit_quality(images: Array, classes: Array, reference: Array | None = None) -> Quality:
    """The quality of generated digits [N, 1, 8, 8] in [-1, 1], asked to be `classes` [N].

    reference  images to measure the distance to; None: the 1,797 real digits
    """
    return sample_quality(images, classes, _digits() if reference is None else features(reference)[0])


def sample_quality(images: Array, classes: Array, known: Array, reader: Reader | None = None) -> Quality:
    """The quality of generated images in [-1, 1], asked to be `classes` [N]; known: `features` of the reference, by the
    same reader."""
    found, read = features(images, reader)
    return Quality(frechet_distance(found, known), float((read == np.asarray(classes)).mean()))
