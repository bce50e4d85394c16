"""EfficientDM: quantization-aware low-rank adapters that merge into integer weights, trained without data.

Paper: He et al., "EfficientDM: Efficient Quantization-Aware Fine-Tuning of Low-Bit Diffusion Models", 2023 (arXiv
2310.03270).
Idea: train a low-rank correction of each layer inside its quantizer, so that what is trained is the rounded sum: in the
end it becomes integer weights and the adapter is gone. The float network's sampling run is the data.
Equations: what = Q(Wd + B A), Wd = s q the post-training quantized weights, frozen; A [r, I k k] by Kaiming, B [O, r]
zero. One update per sampling step: sum |v - v'|^2 on the step's input. The adapter of a layer has learning rate
mean(s) * rate, since a layer with larger steps needs larger moves to cross one; activation scales and zero points
belong to a step.
Differences: ranges by squared error (the paper: exponent 2.4); weights symmetric; rate 0.05 of a step against the
paper's 1/2500, with hundreds of updates instead of 16,000; weight scales stay as they were, but for the
output's gain (`_gain`).
Cost: rounds * steps updates of the network. Limits: each step's scales make a program of their own, with its own copy
of the weights.
"""

from __future__ import annotations

from dataclasses import dataclass
from statistics import fmean
from typing import TYPE_CHECKING, Any

from netsuke.core.method import Method, register
from netsuke.methods.diffusion._options import check_numbers

if TYPE_CHECKING:
    from torch import nn

    from netsuke.methods.diffusion._sampling import Sampling, Seen
    from netsuke.methods.diffusion._tuned import Tuned

NAME = "diffusion/efficientdm"


@dataclass(frozen=True)
class EfficientDM:
    """weight_bits, activation_bits  2 to 8; first convolution, first and last layer have 8
    rank          of the adapters
    per_step      activation scales per sampling step
    rounds        sampling runs trained on; batch: images in each
    rate          of adapters, in weight steps per update; scale_aware False: the same for all layers
    scale_rate    of activation scales, a share of the scale
    gain          the output's amplitude is brought back to the float network's after training (`_gain`), with scales
                  per step also along a run of its own
    """

    weight_bits: int = 4
    activation_bits: int = 4
    rank: int = 16
    per_step: bool = True
    rounds: int = 20
    batch: int = 32
    rate: float = 0.05
    scale_aware: bool = True
    scale_rate: float = 2e-3
    gain: bool = True

    def __post_init__(self) -> None:
        check_numbers(
            self,
            NAME,
            {
                "weight_bits": (2, 8), "activation_bits": (2, 8), "rank": (1, 1e6), "rounds": (0, 1e6),
                "batch": (1, 1e6), "rate": (0, 10), "scale_rate": (0, 1),
            },
        )  # fmt: skip


def apply(model: nn.Module, sampling: Sampling, config: EfficientDM = EfficientDM()) -> Tuned:
    """The tuned network with its adapters merged. facts: output error before and after, share of changed codes."""
    from netsuke.methods.diffusion._gain import match_run, output_layer, restore_gain
    from netsuke.methods.diffusion._tuned import changed, output_error, start

    tuned, seen, before = start(model, sampling, config)
    if config.gain:
        output_layer(tuned.at(0).eval(), seen[0])
    _attach(tuned, config.rank, sampling.seed)
    tuned.losses["adapters"] = _train(model, tuned, config)
    adapted = tuned.codes()
    _merge(tuned)
    if config.gain:
        tuned.facts["gain"] = fmean(restore_gain(model, tuned, first=config.rounds))
    tuned.facts["error_tuned"] = output_error(tuned, seen)  # on the float run, which the next gain does not aim at
    if config.gain and config.per_step:
        tuned.facts["gain_on_own_run"] = match_run(model, tuned, first=config.rounds + 1)
    tuned.facts["codes_changed"] = changed(before, tuned.codes())
    tuned.facts["codes_changed_by_merging"] = changed(adapted, tuned.codes())
    return tuned


def _attach(tuned: Tuned, rank: int, seed: int) -> None:
    """Adapters inside every layer's quantizer; the float weights are replaced by the quantized ones and frozen."""
    import torch

    from netsuke.methods.diffusion._adapter import LowRank
    from netsuke.methods.diffusion._tuned import only

    rng = torch.Generator().manual_seed(seed)
    only(tuned, [])
    for name, layer in tuned.layers().items():
        weight: torch.Tensor = layer.layer.weight  # type: ignore[assignment]
        with torch.no_grad():
            weight.copy_(layer.weight(layer.real_weight()))
        adapter = LowRank(tuple(weight.shape), rank, rng)
        for network in tuned.networks:
            network.layers()[name].adapter = adapter


def _train(model: nn.Module, tuned: Tuned, config: EfficientDM) -> list[float]:
    import torch

    from netsuke.methods.diffusion._tuned import scale_groups, train_on_runs

    layers = list(tuned.layers().values())
    steps = [float(layer.weight.steps()[0].detach().mean()) for layer in layers]
    common = sum(steps) / len(steps)
    groups = [
        {"params": list(layer.adapter.parameters()), "lr": config.rate * (step if config.scale_aware else common)}
        for layer, step in zip(layers, steps, strict=True)
        if layer.adapter is not None
    ]
    groups += scale_groups(tuned, config.scale_rate)
    for group in groups:
        for p in group["params"]:  # type: ignore[attr-defined]
            p.requires_grad_(True)
    optimizer = torch.optim.AdamW(groups, weight_decay=0.0)

    def loss(network: Any, seen: Seen) -> tuple[torch.Tensor, torch.Tensor]:
        error = (network(*seen.inputs) - seen.v) ** 2
        return error.sum(), error.mean()

    return train_on_runs(model, tuned, optimizer, loss, rounds=config.rounds, batch=config.batch, where=NAME)


def _merge(tuned: Tuned) -> None:
    """Add every adapter to its layer's weights, on the quantizer's grid, and take it away."""
    import torch

    for name, layer in tuned.layers().items():
        weight: torch.Tensor = layer.layer.weight  # type: ignore[assignment]
        with torch.no_grad():
            weight.copy_(layer.weight(layer.real_weight()))
        for network in tuned.networks:
            network.layers()[name].adapter = None


METHOD = register(
    Method(
        name=NAME,
        purpose="low-bit diffusion with low-rank adapters that merge into the integer weights, trained without data",
        paper="efficientdm",
        config=EfficientDM,
        apply=apply,
        needs=("gradients", "training"),
        touches=("weights", "activations"),
        exports=("qconv", "qlinear", "wlinear", "lut"),
        cost="rounds * steps updates of the network, no data",
        tags=("denoiser",),
    )
)
