"""Low-bit floating point for diffusion: formats and biases searched per tensor, rounding of weights learned.

Paper: Chen et al., "Low-Bitwidth Floating Point Quantization for Efficient High-Quality Diffusion Models", 2024 (arXiv
2408.06995).
Idea: numbers of a network lie densely around zero with a few far out, which floats cover better than integers of as
many bits; at 4 bits what matters is not the nearest point but the layer's output, so rounding is learned.
Equations: points (-1)^s 2^(e - b) (1 + m / 2^M) with a real bias b per tensor (a scale); format and b of least
E (x - x')^2 among all splits into E and M bits and 40 clipping values. A weight lies between its two neighbours lo and
hi: w = lo + h(a) (hi - lo), h = clip(1.2 sigmoid(a) - 0.1, 0, 1), minimising
E sum_c (y_c - y'_c)^2 + l sum(1 - |2h - 1|^beta), layer by layer on the float network's sampling run, inputs from the
network as quantized so far.
Differences: the paper's search grid is not known; the network's first convolution and last layer have 8 bits.
Cost: `iterations` updates of each layer. Limits: packed are weights of linear layers in e2m1, e4m3 or e5m2 with float
activations. Convolutions, other formats and float activations have no kernel: they are computed as if in PyTorch, and
refused unless allow_simulated is set.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from netsuke.core.errors import Problem, UsageError
from netsuke.core.method import Method, register
from netsuke.methods.diffusion._options import check_numbers, patterns

if TYPE_CHECKING:
    import onnx_ir as ir
    from torch import Tensor, nn

    from netsuke.methods.diffusion._floats import FloatLayer
    from netsuke.methods.diffusion._sampling import Sampling

NAME = "diffusion/float_ptq"


@dataclass(frozen=True)
class FloatPtq:
    """weight_bits      4 or 8; activation_bits: 8, 4, or 32 for float
    layers           patterns joined by +
    packed           only formats that kernels have (e2m1; e4m3, e5m2); False: every split of the bits
    iterations, batch, rate, regular  of learned rounding (Adam); 0 iterations: nearest
    allow_simulated  compute in PyTorch what has no kernel instead of refusing it
    """

    weight_bits: int = 4
    activation_bits: int = 32
    layers: str = "*"
    packed: bool = True
    iterations: int = 150
    batch: int = 32
    rate: float = 1e-2
    regular: float = 1e-2
    allow_simulated: bool = False

    def __post_init__(self) -> None:
        limits: dict[str, tuple[float, float]] = {"iterations": (0, 1e6), "batch": (1, 1e6)}
        limits |= {"rate": (0, 10), "regular": (0, 100)}
        check_numbers(self, NAME, limits)
        problems = []
        if self.weight_bits not in (4, 8):
            problems.append(Problem("weight_bits", NAME, str(self.weight_bits), "4, 8"))
        if self.activation_bits not in (4, 8, 32):
            problems.append(Problem("activation_bits", NAME, str(self.activation_bits), "4, 8, 32"))
        if problems:
            raise UsageError(problems)


@dataclass
class Floats:
    """network  with weights on minifloat grids; sampling: what it was calibrated for
    formats  by layer, "weights" or "weights/activations"
    simulated  what has no kernel, by layer
    """

    network: nn.Module
    sampling: Sampling
    formats: dict[str, str] = field(default_factory=dict)
    simulated: dict[str, str] = field(default_factory=dict)

    def images(self, noise: Tensor, labels: Tensor) -> Tensor:
        """Samples from noise, in the sampling's number of steps."""
        import torch

        from netsuke.nn.diffusion import sample

        with torch.no_grad():
            made: Tensor = sample(self.network, noise, labels, self.sampling.steps)
        return made

    def exports(self) -> Iterator[ir.Model]:
        """One graph for all steps."""
        yield self.export()

    def export(self) -> ir.Model:
        """The canonical graph with minifloat codes behind DequantizeLinear; `compile_program` makes `wlinear` of them.

        UsageError that lists every layer without a kernel.
        """
        from netsuke.methods.diffusion._float_export import packed_graph

        if self.simulated:
            problems = [Problem("no kernel", name, what) for name, what in self.simulated.items()]
            raise UsageError(problems, "simulated layers cannot be exported")
        return packed_graph(self.network, self.sampling)


def apply(model: nn.Module, sampling: Sampling, config: FloatPtq = FloatPtq()) -> Floats:
    """Formats, biases, roundings. Raises UsageError that lists what would be simulated, unless that is allowed."""
    import copy

    import torch

    from netsuke.methods.diffusion._floats import FORMS, PACKED, SEARCH, FloatLayer, best_grid
    from netsuke.methods.diffusion._sampling import together, trajectory

    names = _chosen(model, config)
    simulated = {} if config.allow_simulated else _without_kernel(model, names, config)
    if simulated:
        problems = [Problem("no kernel", n, what, hint="allow_simulated") for n, what in simulated.items()]
        raise UsageError(problems, "these layers would only be simulated")
    edges = _edges(model)
    made = copy.deepcopy(model).eval()
    inputs = together(trajectory(model, sampling)).inputs
    result = Floats(made, sampling)
    for index, name in enumerate(names):
        layer: Any = made.get_submodule(name)
        bits = 8 if name in edges else config.weight_bits
        allowed = tuple(f for f in SEARCH[bits] if f in PACKED) if config.packed else SEARCH[bits]
        new = FloatLayer(layer, best_grid(layer.weight, allowed))
        with torch.no_grad():
            x, _ = _at(made, name, inputs)
            _, wanted = _at(model, name, inputs)
        if config.activation_bits < 32:
            new.reads = best_grid(x, SEARCH[8 if name in edges else config.activation_bits])
        _put(made, name, new)
        if config.iterations:
            _learn(new, x, wanted, config, sampling.seed + index)
        result.formats[name] = new.grid.form.name + (f"/{new.reads.form.name}" if new.reads is not None else "")
    result.simulated = _without_kernel(model, names, config)
    assert all(f.split("/")[0] in FORMS for f in result.formats.values())
    return result


def _chosen(model: nn.Module, config: FloatPtq) -> list[str]:
    from torch import nn

    from netsuke.methods.diffusion._tuned import matching

    found = [n for n, m in model.named_modules() if isinstance(m, (nn.Linear, nn.Conv2d))]
    return matching(found, patterns(config.layers), NAME)


def _edges(model: nn.Module) -> set[str]:
    """First convolution and last layer: they take 8 bits."""
    from torch import nn

    convs = [n for n, m in model.named_modules() if isinstance(m, nn.Conv2d)]
    layers = [n for n, m in model.named_modules() if isinstance(m, (nn.Linear, nn.Conv2d))]
    return {*convs[:1], layers[-1]}


def _without_kernel(model: nn.Module, names: list[str], config: FloatPtq) -> dict[str, str]:
    """What a layer would need that no kernel has, in words."""
    from torch import nn

    found = {}
    for name in names:
        why = [] if isinstance(model.get_submodule(name), nn.Linear) else ["a convolution with minifloat weights"]
        why += [] if config.activation_bits == 32 else [f"activations of {config.activation_bits} bits in float"]
        why += [] if config.packed else ["formats beyond e2m1, e4m3, e5m2"]
        if why:
            found[name] = ", ".join(why)
    return found


def _at(network: nn.Module, name: str, inputs: Any) -> tuple[Tensor, Tensor]:
    """What goes into a layer and what comes out."""
    seen: dict[str, Any] = {}
    hook = network.get_submodule(name).register_forward_hook(lambda _m, x, y: seen.update(x=x[0], y=y))
    try:
        network(*inputs)
    finally:
        hook.remove()
    return seen["x"].detach(), seen["y"].detach()


def _put(network: nn.Module, name: str, module: nn.Module) -> None:
    parent, _, leaf = name.rpartition(".")
    setattr(network.get_submodule(parent), leaf, module)


def _learn(layer: FloatLayer, x: Tensor, wanted: Tensor, config: FloatPtq, seed: int) -> None:
    from netsuke.methods.diffusion._floats import learn_rounding

    learn_rounding(
        layer,
        x,
        wanted,
        iterations=config.iterations,
        batch=config.batch,
        rate=config.rate,
        regular=config.regular,
        seed=seed,
    )


METHOD = register(
    Method(
        name=NAME,
        purpose="FP8 and FP4 for diffusion: formats and biases searched per tensor, weight rounding learned, no data",
        paper="fp-quant-diffusion",
        config=FloatPtq,
        apply=apply,
        needs=("gradients",),
        touches=("weights",),
        exports=("wlinear",),
        cost="iterations updates of each layer, no data",
        tags=("denoiser",),
    )
)
