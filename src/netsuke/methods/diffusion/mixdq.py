"""MixDQ: mixed precision for few-step generators, with a sensitivity for content and one for quality.

Paper: Zhao et al., "MixDQ: Memory-Efficient Few-Step Text-to-Image Diffusion Models with Metric-Decoupled Mixed
Precision Quantization", 2024 (arXiv 2405.17873).
Idea: (1) the first token of a prompt has numbers far larger than all others and is always the same: what key and value
layers make of it is kept as a float constant, so that it does not set the scale of the other tokens. (2) Some layers
decide what an image shows, others how well; one metric for both ranks them wrongly, so each group has its own.
Equations: sensitivity of layer l at b bits: only its weights quantized, images of the whole run from the same noise;
content layers 1 - SSIM, quality layers -SQNR (dB, against the best of the layer's own). Two integer programs, min sum h
with sum n_l b_l <= target of the group, over {2, 4, 8} bits for content and {4, 8} for quality (sums of dB would trade
two layers at 4 bits for one at 2 and one at 8); the total of `bits` is split between the groups in `ratios` ways, all
candidates sample, and the one of least mean squared error to the float images is kept. Activations have 8 bits.
Differences: SSIM in windows of 4x4 for images of 8x8; 10 splits of one total (the paper also scans totals); weights
symmetric with least-squares ranges; activation bits are not searched and no activation stays at 16 bits.
Cost: one sampling run per layer and width, and one per split. Limits: the first token is found where the row of a
table with one row is joined in front of the other tokens; a network without one is searched just the same.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from netsuke.core.errors import Problem, UsageError
from netsuke.core.method import Method, register
from netsuke.methods.diffusion._options import check_numbers, patterns

if TYPE_CHECKING:
    from torch import Tensor, nn

    from netsuke.methods.diffusion._sampling import Sampling
    from netsuke.methods.diffusion._tuned import Tuned

NAME = "diffusion/mixdq"


@dataclass(frozen=True)
class MixDq:
    """bits         weights on average, 2 to 8; 8: all layers at 8 bits, nothing is searched
    first_token  keep what key and value layers make of a constant first token in float
    content      layers of the first group, patterns joined by +; all others are quality layers
    decoupled    False: one program for all layers, by SQNR
    widths       candidates of weight bits, joined by +; quality_widths: of quality layers
    count        images of a sensitivity; ratios: splits of the total that are tried
    """

    bits: float = 8.0
    first_token: bool = True
    content: str = "*attn2.*+*.ff.*"
    decoupled: bool = True
    widths: str = "2+4+8"
    quality_widths: str = "4+8"
    count: int = 32
    ratios: int = 10

    def __post_init__(self) -> None:
        limits: dict[str, tuple[float, float]] = {"bits": (2, 8), "count": (2, 1e6), "ratios": (1, 1000)}
        check_numbers(self, NAME, limits)
        problems = [
            Problem(key, NAME, value, "2 to 8, joined by +")
            for key, value in (("widths", self.widths), ("quality_widths", self.quality_widths))
            if not patterns(value) or any(p not in set("2345678") for p in patterns(value))
        ]
        if problems:
            raise UsageError(problems)


def apply(model: nn.Module, sampling: Sampling, config: MixDq = MixDq()) -> Tuned:
    """The quantized network. facts: layers with a constant first token, bits per weight, splits tried."""
    from netsuke.methods.diffusion._first_token import split_first_token
    from netsuke.methods.diffusion._sampling import trajectory

    seen = trajectory(model, sampling)
    network, found = split_first_token(model) if config.first_token else (model, [])
    if config.bits >= 8:
        made = _prepared(network, sampling, seen, {})
        made.facts = {"first_token_layers": len(found), "bits_per_weight": 8.0, "candidates": 1}
        return made
    names = _searched(network)
    sizes = {n: int(network.get_submodule(n).weight.numel()) for n in names}  # type: ignore[operator]
    harms = sensitivities(network, sampling, config, names)
    best, least, tried = {}, float("inf"), 0
    for widths in _candidates(config, names, sizes, harms):
        error = _image_error(network, sampling, config.count, widths)
        tried += 1
        if error < least:
            best, least = widths, error
    made = _prepared(network, sampling, seen, best)
    mean = sum(sizes[n] * best[n] for n in names) / sum(sizes.values())
    made.facts = {"first_token_layers": len(found), "bits_per_weight": mean, "candidates": tried, "image_error": least}
    return made


def _prepared(network: nn.Module, sampling: Sampling, seen: Any, widths: dict[str, int]) -> Tuned:
    from netsuke.methods.diffusion._tuned import quantized

    return quantized(
        network,
        sampling,
        weight_bits=8,
        activation_bits=8,
        per_step=False,
        seen=seen,
        bits={name: (width, 8) for name, width in widths.items()},
    )


def _searched(network: nn.Module) -> list[str]:
    """Layers whose bits are chosen: all but the first convolution, the first and the last layer."""
    from torch import nn

    names = [n for n, m in network.named_modules() if isinstance(m, (nn.Linear, nn.Conv2d))]
    convs = [n for n in names if isinstance(network.get_submodule(n), nn.Conv2d)]
    return [n for n in names if n not in {names[0], names[-1], *convs[:1]}]


def sensitivities(
    network: nn.Module, sampling: Sampling, config: MixDq, names: list[str]
) -> dict[tuple[str, int], tuple[float, float]]:
    """(1 - SSIM, -SQNR) of the images when only one layer's weights have b bits, for each layer and width."""
    real = _images(network, sampling, config.count)
    found = {}
    for name in names:
        for bits in sorted({*_widths(config, 0), *_widths(config, 1)}):
            with_bits = _with_weights(network, sampling, config.count, {name: bits})
            found[name, bits] = 1.0 - ssim(with_bits, real), -sqnr(with_bits, real)
    return found


def _widths(config: MixDq, group: int) -> list[int]:
    """Candidates of content (0) and quality layers (1); all layers are one group where they are not told apart."""
    return sorted(map(int, patterns(config.quality_widths if group and config.decoupled else config.widths)))


def _images(network: nn.Module, sampling: Sampling, count: int) -> Tensor:
    import torch

    from netsuke.nn.diffusion import sample

    noise, labels = sampling.start(count, 1_000)
    with torch.no_grad():
        made: Tensor = sample(network, noise, labels, sampling.steps)
    return made


def _with_weights(network: nn.Module, sampling: Sampling, count: int, widths: dict[str, int]) -> Tensor:
    """Images while these layers' weights lie on the grids of their bits; the network is left as it was."""
    import torch

    from netsuke.nn.quantizer import Quantizer, QuantSpec

    before = {n: network.get_submodule(n).weight.detach().clone() for n in widths}  # type: ignore[operator]
    try:
        for name, bits in widths.items():
            spec = QuantSpec(
                role="weight", bits=bits, signed=True, granularity="channel", statistic="mse", schedule="live"
            )
            weight: Tensor = network.get_submodule(name).weight  # type: ignore[assignment]
            with torch.no_grad():
                weight.copy_(Quantizer(spec, weight.shape)(weight))
        return _images(network, sampling, count)
    finally:
        for name, old in before.items():
            with torch.no_grad():
                network.get_submodule(name).weight.copy_(old)  # type: ignore[operator]


def _image_error(network: nn.Module, sampling: Sampling, count: int, widths: dict[str, int]) -> float:
    real = _images(network, sampling, count)
    return float(((_with_weights(network, sampling, count, widths) - real) ** 2).mean())


def ssim(x: Tensor, y: Tensor, window: int = 4) -> float:
    """Mean structural similarity of images in [-1, 1] (Wang et al. 2004), uniform windows; 1 for equal ones."""
    from torch.nn.functional import avg_pool2d

    size = min(window, *x.shape[-2:])

    def mean(z: Tensor) -> Tensor:
        return avg_pool2d(z, size, 1)

    mx, my = mean(x), mean(y)
    vx, vy, both = mean(x * x) - mx * mx, mean(y * y) - my * my, mean(x * y) - mx * my
    c1, c2 = (0.01 * 2) ** 2, (0.03 * 2) ** 2
    value = (2 * mx * my + c1) * (2 * both + c2) / ((mx * mx + my * my + c1) * (vx + vy + c2))
    return float(value.mean())


def sqnr(x: Tensor, y: Tensor) -> float:
    """Signal to quantization noise of x against y, in dB, at most 100."""
    noise = float(((x - y) ** 2).sum())
    signal = float((y**2).sum())
    return 100.0 if noise <= signal * 1e-10 else float(10 * np.log10(signal / noise))


def _candidates(
    config: MixDq, names: list[str], sizes: dict[str, int], harms: dict[tuple[str, int], tuple[float, float]]
) -> list[dict[str, int]]:
    """Bits by layer for every split of the total; splits that ask for the same bits come once."""
    from netsuke.methods.diffusion._tuned import matching

    content = matching(names, patterns(config.content), NAME) if config.decoupled else []
    groups = [(content, 0), ([n for n in names if n not in content], 1)]
    total = config.bits * sum(sizes.values())
    found: list[dict[str, int]] = []
    for k in np.linspace(0.46, 1.36, config.ratios) if config.decoupled else [1.0]:
        first, allowed = sum(sizes[n] for n in content), _widths(config, 0)
        share = min(max(k * config.bits, allowed[0]), allowed[-1]) * first
        made: dict[str, int] = {}
        for (members, metric), limit in zip(groups, (share, total - share), strict=True):
            widths = _widths(config, metric)
            if members and limit >= widths[0] * sum(sizes[n] for n in members):
                made |= _program(members, sizes, {key: h[metric] for key, h in harms.items()}, widths, limit)
        if len(made) == len(names) and made not in found:
            found.append(made)
    if not found:
        raise UsageError(Problem("no split of the bits fits", NAME, f"{config.bits:g} bits of {config.widths}"))
    return found


def _program(
    names: list[str], sizes: dict[str, int], harm: dict[tuple[str, int], float], widths: list[int], limit: float
) -> dict[str, int]:
    """The bits of least total harm within the limit, by the integer program."""
    from netsuke.methods.bits import integer_program
    from netsuke.methods.bits._problem import Format, Option
    from netsuke.methods.bits._problem import Problem as Choice

    groups = []
    for n in names:
        low = min(harm[n, b] for b in widths)
        groups.append(
            tuple(
                Option(((n, Format(b, 8)),), harm[n, b] - low, (float(sizes[n] * b),))
                for b in widths
            )
        )  # fmt: skip
    solution = integer_program.apply(Choice(tuple(groups), (limit,), ("weight bits",)))
    return {name: fmt.weight_bits for name, fmt in solution.formats.items()}


METHOD = register(
    Method(
        name=NAME,
        purpose="mixed precision for few-step generators: constant first token, content and quality apart, no data",
        paper="mixdq",
        config=MixDq,
        apply=apply,
        touches=("weights", "activations"),
        exports=("qconv", "qlinear", "wlinear", "lut"),
        cost="one sampling run per layer and width, no data",
        tags=("denoiser",),
    )
)
