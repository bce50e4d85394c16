"""Hessian perturbation: curvature of the loss times the weights' rounding error.

Paper: Yao et al., "HAWQ-V3: Dyadic Neural Network Quantization", 2021 (arXiv 2011.10680), section 3.4; trace by
Hutchinson's estimator as in Dong et al., "HAWQ-V2", 2019 (arXiv 1911.03852).
Idea: near a minimum a weight perturbation d costs d' H d / 2; layers with a flat loss can be rounded coarsely.
Equations: harm(l, b) = (Tr(H_l) / n_l) ||Q_b(W_l) - W_l||^2; Tr(H_l) = mean over v in {-1, +1}^n of v' H_l v.
Differences: the loss is the expected negative log-likelihood under the network's own predictions, whose Hessian at the
trained weights is the Fisher matrix, so no labels are needed; v' H v comes from two evaluations, H being the second
derivative of KL(M_W || M_(W + e v)) along v: (KL(+e v) + KL(-e v)) / e^2, instead of automatic differentiation (equal
to it within the step's error; checked against the closed form on a linear softmax layer). e = `step` times the root
mean square of the layer's weights. Activations are ignored, as in the paper.
Cost: 2 x `probes` runs per layer. Limits: a layer's activation width does not enter.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from zlib import crc32

import numpy as np

from netsuke.core.errors import Problem as Trouble
from netsuke.core.errors import UsageError
from netsuke.core.method import Method, register
from netsuke.methods.bits._probe import Probe, divergence
from netsuke.methods.bits._problem import Format


@dataclass(frozen=True)
class Hessian:
    """probes  random directions per layer; step  length of a step, relative to the weights' root mean square."""

    probes: int = 4
    step: float = 0.02

    def __post_init__(self) -> None:
        problems = []
        if not 1 <= self.probes <= 1000:
            problems.append(Trouble("probes", "bits/hessian", str(self.probes), "1 to 1000"))
        if not 0 < self.step <= 1:
            problems.append(Trouble("step", "bits/hessian", str(self.step), "above 0, at most 1"))
        if problems:
            raise UsageError(problems)


def apply(
    probe: Probe, layers: Sequence[str], formats: Sequence[Format], config: Hessian = Hessian()
) -> dict[tuple[str, Format], float]:
    """Mean curvature times rounding error for each layer and format."""
    found = {}
    for name in layers:
        mean = trace(probe, name, config) / probe.weight(name).size
        for fmt in formats:
            found[name, fmt] = mean * probe.rounding_error(name, fmt.weight_bits)
    return found


def trace(probe: Probe, name: str, config: Hessian) -> float:
    """Hutchinson's estimate of the trace of the layer's block of the Hessian; directions come from seed and name."""
    weight, exact = probe.weight(name), probe.exact()
    step = config.step * float(np.sqrt((weight.astype(np.float64) ** 2).mean()))
    if step == 0.0:
        return 0.0  # a layer of zeros: every format holds it exactly
    rng = np.random.Generator(np.random.PCG64([probe.context.seed, crc32(name.encode())]))
    values = []
    for _ in range(config.probes):
        v = rng.integers(0, 2, weight.shape).astype(np.float32) * 2 - 1
        both = sum(divergence(exact, probe.moved(name, weight + sign * np.float32(step) * v)) for sign in (1, -1))
        values.append(both / step**2)
        probe.tick()
    return float(np.mean(values))


METHOD = register(
    Method(
        name="bits/hessian",
        purpose="rate a layer's format by the loss's curvature times the weights' rounding error",
        paper="hawq-v3",
        config=Hessian,
        apply=apply,
        needs=("data",),
        cost="8 runs over a few samples per layer",
        tags=("sensitivity",),
    )
)
