"""AdaPT: every layer's word length and fraction length follow what its weights and gradients need.

Paper: Kummer et al., "Adaptive Precision Training (AdaPT): A dynamic fixed point quantized training approach for
DNNs", 2021 (arXiv 2107.13490).
Idea: signed fixed point <WL, FL> (step 2^-FL) for the weights and activations of a layer. Every `lookback` steps the
pair is pushed down to the shortest that loses no information now, then up by what the gradients say is coming.
Equations: push down: KL(hist(w) || hist(Q(w))) over `resolution` bins of [min w, max w]; the smallest FL with KL
below `tolerance` by bisection, then the smallest WL >= FL. Push up: D = sum |g_k| / |sum g_k| over the window,
l = ln(D) - 1; if l > 0: s1 = max(ceil(1 / l^2), 1), s2 = max(min(ceil(32 l^2), 32) - FL, 0), s = min, mean or max of
both, else s = 1; FL += s, WL = max(WL, FL) + 1, then WL >= FL + headroom. The window follows ceil(longest / D); the
resolution grows by one when the window is longest and falls by one when it is shortest. Each weight gradient's norm is
clipped to 1.
Differences: words end at 16 bits (32 in the paper), because products are integers: 8-bit lanes up to 8 bits, 16-bit
ones above. Weights and activations round to nearest, gradients stochastically with WL bits and a scale of their own
tensor (fixed point at 2^-FL would lose them). KL adds 1e-12 and has a tolerance (released code: "zero" of a KL that
takes no logarithms). The strategy is an option; the paper moves it with the loss. One window a layer: lookback equal to
the steps of an epoch switches once an epoch.
Cost: two passes over the weight gradient a step; at a switch about eight histograms of the weights.
Limits: the speed-up is modelled (`performance`), as in the paper: on a CPU all words up to 8 bits cost the
same. FL >= 4. Words above
8 bits have no engine layer: the trained network is float and goes through post-training quantization.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from netsuke.core.errors import Problem, UsageError, near
from netsuke.core.method import Method, register
from netsuke.nn.integer_config import IntegerConfig, kept

if TYPE_CHECKING:
    from torch import Tensor, nn

    from netsuke.nn.integer_train import IntegerLayer

LONGEST, EVENTS = 16, 512
STRATEGIES = ("min", "mean", "max")


@dataclass(frozen=True)
class AdaPT:
    """word, fraction        WL and FL at the start
    headroom                 integer bits (with sign) above FL that a layer keeps for activations and updates
    lookback_min, _max       steps between two decisions
    resolution_min, _max     bins of the information test; fewer bins, shorter words
    tolerance                KL below which nothing counts as lost, nats
    strategy                 "min", "mean" or "max" of both push-up rules
    keep_float               names or patterns of layers left alone, separated by "|", or "none"
    """

    word: int = 8
    fraction: int = 4
    headroom: int = 4
    lookback_min: int = 25
    lookback_max: int = 100
    resolution_min: int = 50
    resolution_max: int = 150
    tolerance: float = 0.05
    strategy: str = "min"
    keep_float: str = "none"
    seed: int = 0

    def __post_init__(self) -> None:
        allowed = {
            "word": (4 <= self.word <= LONGEST, f"4 to {LONGEST}"),
            "fraction": (0 < self.fraction < self.word, "1 to word - 1"),
            "headroom": (1 <= self.headroom <= 8, "1 to 8"),
            "lookback_min": (2 <= self.lookback_min <= self.lookback_max, "2 to lookback_max"),
            "resolution_min": (2 <= self.resolution_min <= self.resolution_max, "2 to resolution_max"),
            "tolerance": (self.tolerance > 0, "above 0"),
            "strategy": (self.strategy in STRATEGIES, near(self.strategy, STRATEGIES)),
        }
        problems = [Problem(n, "AdaPT", str(getattr(self, n)), text) for n, (held, text) in allowed.items() if not held]
        if problems:
            raise UsageError(problems)


@dataclass(frozen=True)
class Switch:
    """One decision about one layer: (WL, FL) before, after the push down, and after the push up."""

    layer: str
    step: int
    before: tuple[int, int]
    down: tuple[int, int]
    after: tuple[int, int]


@dataclass(frozen=True)
class Performance:
    """The analytical model: work counted in multiply-adds times bits, relative to 32-bit training of the same steps.

    training: modelled speed-up including the controller's own work. inference: of the words as they are now.
    size: weights now, relative to 32 bits. bits: mean word length over steps, weighted by multiply-adds.
    """

    training: float
    inference: float
    size: float
    bits: float


def divergence(weight: Tensor, word: int, fraction: int, resolution: int) -> float:
    """KL(hist(w) || hist(Q(w))) in nats, both over `resolution` bins of w's range; 0 for constant weights."""
    import torch

    w = weight.detach().flatten().float()
    low, high = float(w.min()), float(w.max())
    if not high > low:
        return 0.0
    top = 2 ** (word - 1) - 1
    q = torch.clamp(torch.round(w * 2.0**fraction), -top, top) * 2.0**-fraction
    shares = [torch.histc(v.clamp(low, high), resolution, low, high).double() / len(w) + 1e-12 for v in (w, q)]
    return float((shares[0] * (shares[0] / shares[1]).log()).sum())


def push_down(weight: Tensor, config: AdaPT, resolution: int) -> tuple[int, int]:
    """The smallest FL that loses nothing at LONGEST bits, then the smallest WL at that FL; by bisection."""

    def smallest(low: int, high: int, lost: Any) -> int:
        while low < high:
            middle = (low + high) // 2
            low, high = (low, middle) if lost(middle) <= config.tolerance else (middle + 1, high)
        return low

    most = LONGEST - config.headroom
    fraction = smallest(min(4, most), most, lambda f: divergence(weight, LONGEST, f, resolution))
    shortest = smallest(fraction, LONGEST, lambda n: divergence(weight, n, fraction, resolution))
    return shortest, fraction


def push_up(word: int, fraction: int, diversity: float, config: AdaPT) -> tuple[int, int]:
    """Room for coming updates, by the diversity D >= 1 of the window's gradients."""
    spread, step = math.log(max(diversity, 1.0)) - 1, 1
    if spread > 0:
        rules = max(math.ceil(1 / spread**2), 1), max(min(math.ceil(32 * spread**2), 32) - fraction, 0)
        step = {"min": min(rules), "mean": math.ceil(sum(rules) / 2), "max": max(rules)}[config.strategy]
    fraction = min(fraction + step, LONGEST - config.headroom)
    word = min(max(word, fraction) + 1, LONGEST)
    return max(min(fraction + config.headroom, LONGEST), word), fraction


def arithmetic(word: int, fraction: int, seed: int) -> IntegerConfig:
    """Products of a layer with that pair: 8-bit lanes up to 8 bits, 16-bit ones above."""
    if word <= 8:
        return IntegerConfig(word, word, word, "tensor", fraction=fraction, seed=seed)
    return IntegerConfig(word, word, word, "dfp", fraction=fraction, stochastic=False, seed=seed)


def _state(weight: Tensor, config: AdaPT) -> Any:
    """The controller's memory of one layer, as buffers: a resumed run decides what an uninterrupted one would."""
    import torch

    state: Any = torch.nn.Module()
    whole = {
        "word": config.word,
        "fraction": config.fraction,
        "count": 0,
        "step": 0,
        "lookback": config.lookback_min,
        "resolution": (config.resolution_min + config.resolution_max) // 2,
        "switches": 0,
        "macs": 0,
    }
    for name, value in whole.items():
        state.register_buffer(name, torch.tensor(value, dtype=torch.int64))
    for name in ("norms", "spent", "plain", "overhead"):
        state.register_buffer(name, torch.zeros((), dtype=torch.float64))
    state.register_buffer("total", torch.zeros_like(weight.detach()))
    state.register_buffer("events", torch.zeros(EVENTS, 7, dtype=torch.int64))
    state.config = config
    return state


def _sync(layer: Any, _inputs: Any) -> None:
    """Before a forward pass: the layer computes with what its state says (which a checkpoint may have changed)."""
    word, fraction = int(layer.adapt.word), int(layer.adapt.fraction)
    if (layer.config.weight_bits, layer.config.fraction) != (word, fraction):
        layer.config = arithmetic(word, fraction, layer.config.seed)


def _collect(layer: IntegerLayer, positions: int, dw: Tensor) -> Tensor:
    """After a backward pass: clip, remember, and switch when the window is full. Returns the clipped gradient."""
    state: Any = layer.adapt
    norm = float(dw.double().norm())
    if norm > 1:
        dw, norm = dw / norm, 1.0
    state.total += dw
    state.norms += norm
    state.count += 1
    state.step += 1
    state.macs.fill_(positions * dw.numel())
    work = 3.0 * positions * dw.numel()
    state.spent += work * int(state.word)
    state.plain += work * 32
    state.overhead += 2.0 * dw.numel() * 32
    if int(state.count) >= int(state.lookback):
        _switch(layer, state)
    return dw


def _switch(layer: IntegerLayer, state: Any) -> None:
    config: AdaPT = state.config
    length = float(state.total.double().norm())
    diversity = float(state.norms) / length if length > 0 else 1.0
    before = int(state.word), int(state.fraction)
    down = push_down(layer.weight, config, int(state.resolution))
    after = push_up(*down, diversity, config)
    row = state.events[int(state.switches) % EVENTS]
    for at, value in enumerate((int(state.step), *before, *down, *after)):
        row[at] = value
    state.switches += 1
    state.overhead += 16.0 * layer.weight.numel() * 32
    window = max(config.lookback_min, min(config.lookback_max, math.ceil(config.lookback_max / diversity)))
    change = int(window == config.lookback_max) - int(window == config.lookback_min)
    resolution = max(config.resolution_min, min(config.resolution_max, int(state.resolution) + change))
    for name, number in (("word", after[0]), ("fraction", after[1]), ("lookback", window), ("resolution", resolution)):
        getattr(state, name).fill_(number)
    state.count.zero_()
    state.norms.zero_()
    state.total.zero_()


def states(model: nn.Module) -> dict[str, Any]:
    """The controller's memory by layer; empty for a network without AdaPT."""
    return {name: m.adapt for name, m in model.named_modules() if hasattr(m, "adapt")}


def log(model: nn.Module) -> list[Switch]:
    """Every decision (the last 512 of a layer), by step."""
    found = []
    for name, state in states(model).items():
        total = int(state.switches)
        for index in range(max(0, total - EVENTS), total):
            step, *pairs = (int(v) for v in state.events[index % EVENTS])
            found.append(Switch(name, step, (pairs[0], pairs[1]), (pairs[2], pairs[3]), (pairs[4], pairs[5])))
    return sorted(found, key=lambda s: (s.step, s.layer))


def performance(model: nn.Module) -> Performance:
    """The analytical model over the steps taken so far; UsageError before the first."""
    found = list(states(model).values())
    plain = sum(float(s.plain) for s in found)
    if not plain > 0:
        raise UsageError(Problem("no training step was taken with AdaPT", got=type(model).__name__))
    spent, overhead = (sum(float(getattr(s, name)) for s in found) for name in ("spent", "overhead"))
    macs = sum(int(s.macs) for s in found)
    weights = sum(s.total.numel() for s in found)
    return Performance(
        training=plain / (spent + overhead),
        inference=32 * macs / sum(int(s.macs) * int(s.word) for s in found),
        size=sum(s.total.numel() * int(s.word) for s in found) / (32 * weights),
        bits=32 * spent / plain,
    )


def apply(model: nn.Module, config: AdaPT = AdaPT()) -> nn.Module:
    """Make every convolution and linear layer train with a word length of its own, in place."""
    from netsuke.nn.integer_swap import integer_, integer_layers

    integer_(model, arithmetic(config.word, config.fraction, config.seed), keep_float=kept(config.keep_float))
    for layer in integer_layers(model).values():
        layer.adapt = _state(layer.weight, replace(config))
        layer.controller = _collect
        layer.register_forward_pre_hook(_sync)
    return model


METHOD = register(
    Method(
        name="integer/adapt",
        purpose="train in fixed point whose word and fraction length every layer chooses while it trains",
        paper="adapt-precision",
        config=AdaPT,
        apply=apply,
        needs=("data", "labels", "gradients", "training"),
        touches=("weights", "activations"),
        exports=(),
        status="trial",
        cost="a training run, and about eight histograms of the weights a decision",
        tags=("train",),
    )
)
