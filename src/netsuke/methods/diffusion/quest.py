"""QuEST: low-bit diffusion by fine-tuning only the layers that feel it.

Paper: Wang et al., "QuEST: Low-bit Diffusion Model Quantization via Efficient Selective Finetuning", 2024 (arXiv
2402.03666).
Idea: at 4 bits a diffusion network fails in few places: in the embedding of time, whose values must arrive exactly, and
in attention and feed-forward layers. Train those on the float network's own sampling run, freeze everything else.
Equations: stage 1, parameters of the time layers and the scales they read: L = sum_l E |y_l - y'_l|^2 + E |v - v'|^2
over time layers l; stage 2, fragile layers and all other activation scales: L = E |v - v'|^2. v is the network's
output, ' the quantized one on the same input. Activation scales belong to a sampling step.
Differences: rates fall linearly to zero in each stage; starts from nearest rounding with least-squares ranges instead
of learned rounding; scales per tensor (no channel-wise activations); besides the paper's attention and feed-forward
layers, `measured` further ones are chosen by the output error their own quantization makes; the output's gain is
restored (`_gain`).
Cost: (time_rounds + rounds) * steps updates. Limits: each step's scales make a program of their own, with its own copy
of the weights.
"""

from __future__ import annotations

from dataclasses import dataclass
from statistics import fmean
from typing import TYPE_CHECKING, Any

from netsuke.core.method import Method, register
from netsuke.methods.diffusion._options import check_numbers, patterns

if TYPE_CHECKING:
    from torch import Tensor, nn

    from netsuke.methods.diffusion._sampling import Sampling, Seen
    from netsuke.methods.diffusion._tuned import Tuned

NAME = "diffusion/quest"


@dataclass(frozen=True)
class Quest:
    """weight_bits, activation_bits  2 to 8; first convolution, first and last layer have 8
    per_step      activation scales per sampling step
    time          layers of stage 1, patterns joined by +
    fragile       layers of stage 2, likewise; measured: so many more, by the error they make
    time_rounds, rounds  sampling runs trained on in the stages; batch: images in each
    rate          of weights (Adam); scale_rate: of activation scales, a share of the scale
    gain          the output's amplitude is brought back to the float network's after training (`_gain`)
    """

    weight_bits: int = 4
    activation_bits: int = 4
    per_step: bool = True
    time: str = "time.*+*.emb+*modulation"
    fragile: str = "*attn*+*.ff.*+*.mlp.*"
    measured: int = 4
    time_rounds: int = 6
    rounds: int = 48
    batch: int = 32
    rate: float = 5e-4
    scale_rate: float = 2e-3
    gain: bool = True

    def __post_init__(self) -> None:
        check_numbers(
            self,
            NAME,
            {
                "weight_bits": (2, 8), "activation_bits": (2, 8), "measured": (0, 1e6), "time_rounds": (0, 1e6),
                "rounds": (0, 1e6), "batch": (1, 1e6), "rate": (0, 1), "scale_rate": (0, 1),
            },
        )  # fmt: skip


def apply(model: nn.Module, sampling: Sampling, config: Quest = Quest()) -> Tuned:
    """The tuned network. facts: share of trained weights, output error before and after."""
    from netsuke.methods.diffusion._gain import output_layer, restore_gain
    from netsuke.methods.diffusion._tuned import changed, matching, output_error, start

    tuned, seen, before = start(model, sampling, config)
    if config.gain:
        output_layer(tuned.at(0).eval(), seen[0])
    names = list(tuned.layers())
    time = matching(names, patterns(config.time), NAME)
    fragile = [n for n in matching(names, patterns(config.fragile), NAME) if n not in time]
    rest = [n for n in worst(tuned, seen) if n not in (*time, *fragile)]
    fragile += rest[: config.measured]
    tuned.losses["time"] = _stage(model, tuned, time, time, config, config.time_rounds, 0)
    tuned.losses["fragile"] = _stage(model, tuned, fragile, [], config, config.rounds, config.time_rounds)
    if config.gain:
        tuned.facts["gain"] = fmean(restore_gain(model, tuned, first=config.time_rounds + config.rounds))
    after = tuned.codes()
    tuned.facts["error_tuned"] = output_error(tuned, seen)
    weights = {n: layer.layer.weight.numel() for n, layer in tuned.layers().items()}  # type: ignore[operator]
    tuned.facts["trained_share"] = sum(weights[n] for n in (*time, *fragile)) / sum(weights.values())
    tuned.facts["codes_changed"] = changed(before, after)
    frozen = [n for n in names if n not in (*time, *fragile)]
    tuned.facts["frozen_codes_changed"] = changed({n: before[n] for n in frozen}, after) if frozen else 0.0
    return tuned


def worst(tuned: Tuned, seen: list[Seen]) -> list[str]:
    """Layers by the output error that only their own weights and input make when quantized, largest first."""
    import torch

    step = len(seen) // 2  # the middle of the run: image and noise weigh the same
    network, given = tuned.at(step).train(), seen[step]  # float arithmetic: other tensors are on no grid
    network.freeze_norms()
    quantizers, errors = network.quantizers(), {}
    for quantizer in quantizers.values():
        quantizer.enabled = False
    with torch.no_grad():
        for name, layer in network.layers().items():
            layer.weight.enabled, layer.source.enabled = True, True
            errors[name] = float(((network(*given.inputs) - given.v) ** 2).mean())
            layer.weight.enabled, layer.source.enabled = False, False
    for quantizer in quantizers.values():
        quantizer.enabled = True
    return sorted(errors, key=lambda n: -errors[n])


def _stage(
    model: nn.Module, tuned: Tuned, layers: list[str], watched: list[str], config: Quest, rounds: int, first: int
) -> list[float]:
    """Train weights and biases of these layers and the activation scales that belong to the stage."""
    import torch

    from netsuke.methods.diffusion._tuned import only, scale_groups, train_on_runs

    if not rounds or not layers:
        return []
    chosen = only(tuned, layers)
    scales = scale_groups(tuned, config.scale_rate, watched or None)
    for group in scales:
        group["params"][0].requires_grad_(True)
    optimizer = torch.optim.Adam([{"params": chosen, "lr": config.rate}, *scales])

    def loss(network: Any, seen: Seen) -> tuple[Tensor, Tensor]:
        return _loss(network, watched, seen, _outputs(model, watched, seen) if watched else {})

    return train_on_runs(model, tuned, optimizer, loss, rounds=rounds, batch=config.batch, first=first, where=NAME)


def _outputs(model: nn.Module, names: list[str], seen: Seen) -> dict[str, Tensor]:
    """Outputs of the float network's layers."""
    import torch

    found: dict[str, Tensor] = {}
    hooks = [
        model.get_submodule(n).register_forward_hook(lambda _m, _i, out, n=n: found.__setitem__(n, out)) for n in names
    ]
    try:
        with torch.no_grad():
            model(*seen.inputs)
    finally:
        for hook in hooks:
            hook.remove()
    return found


def _loss(network: Any, names: list[str], seen: Seen, wanted: dict[str, Tensor]) -> tuple[Tensor, Tensor]:
    """The stage's loss, and its part at the network's output."""
    from netsuke.nn.qlayers import INF

    found: dict[str, Tensor] = {}
    plain = [
        (n, layer)
        for n, layer in network.layers().items()
        if n in names and layer.residual is None and layer.norm is None and layer.bounds == (-INF, INF)
    ]  # what is fused behind the others makes their output another one
    hooks = [layer.register_forward_hook(lambda _m, _i, out, n=n: found.__setitem__(n, out)) for n, layer in plain]
    try:
        v = network(*seen.inputs)
    finally:
        for hook in hooks:
            hook.remove()
    output = ((v - seen.v) ** 2).mean()
    return output + sum(((found[n] - wanted[n]) ** 2).mean() for n in found), output


METHOD = register(
    Method(
        name=NAME,
        purpose="low-bit diffusion by fine-tuning time embedding and fragile layers on the float network's own samples",
        paper="quest-diffusion",
        config=Quest,
        apply=apply,
        needs=("gradients", "training"),
        touches=("weights", "activations"),
        exports=("qconv", "qlinear", "wlinear", "lut"),
        cost="(time_rounds + rounds) * steps updates of the network, no data",
        tags=("denoiser",),
    )
)
