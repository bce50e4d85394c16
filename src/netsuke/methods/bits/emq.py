"""EMQ: a formula for the harm of bits, evolved on a small table of measured configurations.

Paper: Dong et al., "EMQ: Evolving Training-free Proxies for Automated Mixed Precision Quantization", 2023 (arXiv
2307.10554).
Idea: hand-made proxies (size, rounding error, curvature) rank bit configurations more or less well; which formula ranks
best on this network can be found by evolution, judged by its rank correlation with measured quality.
Equations: proxy(config) = +-sum_l b(u2(u1(x_l)), u4(u3(y_l))), x, y from {bits, size, power, error, curvature, shift}
of layer l at its bits: number of weights, mean square weight, relative rounding error, mean trace of the Hessian, KL of
the outputs when this layer alone is rounded. Fitness is Spearman's correlation with minus the KL of whole
configurations.
Differences: inputs are numbers per layer, not tensors; ten unary and six binary operations; a configuration is judged
on calibration samples by the divergence of the network's outputs, so no labels are needed; the table is made here, of
`table` random configurations, a third of them held out. Weights only: activation widths do not enter.
Cost: table + 9 x layers + layers x formats runs over a few samples, and `rounds` formulas, which cost nothing.
Limits: a formula evolved on one network is not meant for another.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import onnx_ir as ir

from netsuke.core.errors import Problem as Trouble
from netsuke.core.errors import UsageError
from netsuke.core.method import Method, register
from netsuke.core.seeds import generator
from netsuke.methods.bits import _proxies
from netsuke.methods.bits._probe import Probe, divergence
from netsuke.methods.bits._problem import Format
from netsuke.methods.bits._proxies import Found, Ints, Table, Tree
from netsuke.methods.bits.hessian import Hessian, trace
from netsuke.methods.quantize._codes import weight_codes, weight_scales
from netsuke.methods.quantize._graph import Array, along, clone, set_constant

INPUTS = ("bits", "size", "power", "error", "curvature", "shift")
# Hand-made proxies as trees: what an evolved one must beat, and where evolution starts.
BUILTIN: dict[str, Tree] = {
    "size": Tree(("bits", "same", "same"), ("size", "same", "same"), "*"),
    "rounding error": Tree(("error", "same", "same"), ("error", "same", "same"), "+"),
    "hessian": Tree(("error", "same", "same"), ("curvature", "same", "same"), "*"),
    "kl": Tree(("shift", "same", "same"), ("shift", "same", "same"), "+"),
}


@dataclass(frozen=True)
class Emq:
    """table: configurations measured; rounds: of evolution; population: of trees."""

    table: int = 48
    rounds: int = 3000
    population: int = 40

    def __post_init__(self) -> None:
        limits = (("table", 12, 10_000), ("rounds", 1, 1_000_000), ("population", 4, 10_000))
        problems = [
            Trouble(key, "bits/emq", str(getattr(self, key)), f"{low} to {high}")
            for key, low, high in limits
            if not low <= getattr(self, key) <= high
        ]
        if problems:
            raise UsageError(problems)


def apply(
    probe: Probe, layers: Sequence[str], formats: Sequence[Format], config: Emq = Emq()
) -> dict[tuple[str, Format], float]:
    """The evolved formula's value per layer and format, turned so that more is worse, from 0 up."""
    rng = generator(probe.context.seed, "emq", *layers)
    inputs = features(probe, layers, formats)
    configs = rng.integers(0, len(formats), (config.table, len(layers)))
    exact = probe.exact()
    quality = np.array(
        [
            -divergence(exact, probe.run(rounded(probe, layers, [formats[i] for i in row]), probe.outputs))
            for row in configs
        ]
    )
    train = np.arange(config.table) % 3 != 0
    best = best_tree(inputs, configs[train], quality[train], config, rng)
    held = correlations(inputs, configs[~train], quality[~train])
    own = _proxies.rank_correlation(_proxies.scores(best.tree.values(inputs), configs[~train]), quality[~train])
    rest = ", ".join(f"{name} {value:.2f}" for name, value in held.items())
    probe.context.plan.note(f"emq: {best.tree} ranks held-out configurations with {own:.2f} ({rest})")
    harm = -best.tree.values(inputs)
    harm = np.nan_to_num(harm - harm.min(), posinf=1e30)
    return {(n, f): float(harm[i, j]) for i, n in enumerate(layers) for j, f in enumerate(formats)}


def best_tree(
    inputs: Mapping[str, Table], configs: Ints, quality: npt.NDArray[np.float64], config: Emq, rng: np.random.Generator
) -> Found:
    """Evolution from random trees and the hand-made ones."""
    return _proxies.evolve(
        inputs, configs, quality, rng, population=config.population, rounds=config.rounds, seeds=tuple(BUILTIN.values())
    )


def correlations(inputs: Mapping[str, Table], configs: Ints, quality: npt.NDArray[np.float64]) -> dict[str, float]:
    """How well each hand-made proxy ranks these configurations, with the sign that serves it best."""
    return {
        name: abs(_proxies.rank_correlation(_proxies.scores(tree.values(inputs), configs), quality))
        for name, tree in BUILTIN.items()
    }


def features(probe: Probe, layers: Sequence[str], formats: Sequence[Format]) -> dict[str, Table]:
    """The inputs of trees, each [layers, formats]."""
    found = {name: np.zeros((len(layers), len(formats))) for name in INPUTS}
    exact = probe.exact()
    for i, name in enumerate(layers):
        weight = probe.weight(name).astype(np.float64)
        power, mean = float((weight**2).mean()), trace(probe, name, Hessian()) / weight.size
        for j, fmt in enumerate(formats):
            error = probe.rounding_error(name, fmt.weight_bits)
            shift = divergence(exact, probe.run(rounded(probe, [name], [fmt]), probe.outputs))
            row = (
                fmt.weight_bits,
                weight.size,
                power,
                error / max(power * weight.size, 1e-30),
                mean * weight.size,
                shift,
            )
            for key, value in zip(INPUTS, row, strict=True):
                found[key][i, j] = value
    return found


def rounded(probe: Probe, layers: Sequence[str], formats: Sequence[Format]) -> ir.Model:
    """The float network with these layers' weights on their grids."""
    model = clone(probe.context.model)
    for name, fmt in zip(layers, formats, strict=True):
        value = model.graph.initializers[probe.layer(name).weight.name]  # type: ignore[union-attr, index]
        set_constant(value, on_grid(probe, name, fmt.weight_bits))
    return model


def on_grid(probe: Probe, name: str, bits: int) -> Array:
    """Weights rounded to nearest by the row's rule and granularity."""
    row, weight = probe.context.plan[name].rows[0], probe.weight(name)
    axis = probe.layer(name).axis if row.granularity == "channel" else None
    scales = weight_scales(weight, axis, bits, row.weights or "maxabs")
    steps = scales.reshape(()) if axis is None else along(scales, axis, weight.ndim)
    return np.asarray(weight_codes(weight, scales, axis, bits) * steps, np.float32)


METHOD = register(
    Method(
        name="bits/emq",
        purpose="rate a layer's format by a formula evolved on a small table of measured configurations",
        paper="emq",
        config=Emq,
        apply=apply,
        needs=("data",),
        cost="about 100 runs over a few samples",
        tags=("sensitivity",),
    )
)
