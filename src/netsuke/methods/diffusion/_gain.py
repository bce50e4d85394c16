"""The gain of a quantized denoiser: what least squares takes from its output is given back.

Source: the correlated part of quantization noise in He et al., "PTQD: Accurate Post-Training Quantization for Diffusion
Models", 2023 (arXiv 2305.10657), section 3.3: v' = (1 + k) v + (what v does not explain), and the output is divided by
1 + k. Here 1 / (1 + k) = E[v^2] / E[v v'] for every sampling step, over a run of the float network.
Why: trained by squared error, a network that sees less than the float one answers with less amplitude (1 to 3 % here),
and a sampling run adds that up. On the digits U-Net at W4A4 the distance to the float network's samples halves.
How: a gain of the output is one of the output layer's weight scale and bias. Codes stay what they are; with scales per
step that layer becomes each step's own.

`match_run` goes on from there: on a run of its own the network meets other images than on the float network's, and what
comes out deviates less from its mean (0.724 against 0.727). One gain for all steps (1.03) gives that back. Digits
U-Net, EfficientDM at W4A4, four sets of 500 samples: distance to the real digits 0.166 and 0.162 before (two seeds),
0.143 and 0.137 after (float 0.139 and 0.127); to the float network's samples 0.008 before, 0.006 and 0.007 after. A
gain for every step of its own doubled the latter in one seed: the first steps hardly move what comes out.
"""

from __future__ import annotations

import copy

import torch
from torch import Tensor, nn

from netsuke.core.errors import Problem, UsageError
from netsuke.methods.diffusion._sampling import Seen, trajectory
from netsuke.methods.diffusion._tuned import Tuned
from netsuke.methods.qat import QatNetwork
from netsuke.nn.diffusion import sample
from netsuke.nn.qlayers import INF, QuantLayer

IMAGES = 256  # of the float run: a standard error of the gain of about 0.1 %
TRIED, MOST = 1.03, 1.05  # of `match_run`: the gain from which the right one is read off, and the largest


@torch.no_grad()
def restore_gain(model: nn.Module, tuned: Tuned, *, first: int) -> list[float]:
    """Gains by network (one, or one a step), applied in place. first: runs of the float network already used.

    Raises what `output_layer` raises.
    """
    seen = trajectory(model, tuned.sampling, count=max(IMAGES, tuned.sampling.count), round_=first + 1)
    steps = [seen] if len(tuned.networks) == 1 else [[s] for s in seen]
    gains = []
    for network, runs in zip(tuned.networks, steps, strict=True):
        network.eval()
        layer = output_layer(network, runs[0])
        layer.layer, layer.weight = copy.deepcopy(layer.layer), copy.deepcopy(layer.weight)  # this network's own
        gain = _fit(torch.cat([run.v for run in runs]), torch.cat([network(*run.inputs) for run in runs]))
        _scale(layer, gain)
        gains.append(gain)
    return gains


@torch.no_grad()
def match_run(model: nn.Module, tuned: Tuned, *, first: int) -> float:
    """The gain for all steps, applied in place, with which images on the network's own run deviate as the float ones.

    After `restore_gain`, on networks with an output layer of their own. first: runs of the float network already used.
    """
    count = 2 * max(IMAGES, tuned.sampling.count)
    noise, labels = tuned.sampling.start(count, first + 1)
    step = trajectory(model, tuned.sampling, count=2, round_=first + 1)[0]
    layers = [output_layer(network.eval(), step) for network in tuned.networks]
    wanted = float(sample(model, noise, labels, tuned.sampling.steps).std())
    plain = float(tuned.images(noise, labels).std())
    for layer in layers:
        _scale(layer, TRIED)
    more = float(tuned.images(noise, labels).std())
    gain = 1.0 if more <= plain else 1 + (TRIED - 1) * (wanted - plain) / (more - plain)
    gain = min(max(gain, 1 / MOST), MOST)
    for layer in layers:
        _scale(layer, gain / TRIED)
    return gain


def _scale(layer: QuantLayer, gain: float) -> None:
    for t in (layer.weight.scale, layer.weight.floor, layer.layer.weight, layer.layer.bias):
        if t is not None:
            t.mul_(gain)  # type: ignore[operator]


def _fit(wanted: Tensor, made: Tensor) -> float:
    """The gain after which nothing of v is left in v' - v; 1 where v' has nothing of v."""
    power, common = float((wanted.double() ** 2).mean()), float((wanted.double() * made.double()).mean())
    return power / common if power > 0 and common > 0 else 1.0


def output_layer(network: QatNetwork, run: Seen) -> QuantLayer:
    """The layer whose numbers are those of the network in eval mode, in whatever order.

    Raises UsageError where no quantized layer gives the network's output, or something is fused behind it: ask before a
    training that ends in `restore_gain`.
    """
    given: list[tuple[QuantLayer, Tensor]] = []
    hooks = [
        layer.register_forward_hook(lambda module, _i, out: given.append((module, out)))
        for layer in network.layers().values()
    ]
    try:
        result = network(*run.inputs).flatten().sort().values
    finally:
        for hook in hooks:
            hook.remove()
    layer = next((m for m, out in reversed(given) if torch.equal(out.flatten().sort().values, result)), None)
    if layer is None or not _is_plain(layer):
        got = "an operator without weights gives it" if layer is None else "a layer with something fused behind it"
        raise UsageError(Problem("the gain of the output has no scale to go into", got=got, hint="gain=False"))
    return layer


def _is_plain(layer: QuantLayer) -> bool:
    fused = (layer.norm, layer.residual, layer.target, layer.transform)
    return all(part is None for part in fused) and layer.bounds == (-INF, INF)
