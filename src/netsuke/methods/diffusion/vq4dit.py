"""VQ4DiT: weights of a diffusion transformer as vectors of a codebook, codebook and assignments calibrated together.

Paper: Deng et al., "VQ4DiT: Efficient Post-Training Vector Quantization for Diffusion Transformers", 2024 (arXiv
2408.17131).
Idea: tuning the codebook alone cannot undo a bad assignment, since members of a cluster pull in different directions;
each vector keeps its two nearest entries as candidates and moves between them by gradient until it decides.
Equations: w = r C[a1] + (1 - r) C[a2], r = sigmoid(z), z starts at log(d2 / d1) of the distances. Both networks sample
from the same noise, each on its own images; L = mean over blocks of E |h - h'|^2 at the current step, plus
2 mean(r (1 - r)) where that is above its lowest value so far. An r beyond `limit` is fixed; after `rounds` the rest
takes the larger share, and the codebooks are trained.
Differences: codebooks start training together (the paper: layer by layer, once 99% of its vectors are fixed). Vectors
are in units of their channel's max|W| / 127 and entries end as integers, so that the int8 kernels run them; 16 entries
of 2 weights (a codebook of 256 x 4 would outweigh the layers of a toy).
Cost: (rounds + entry_rounds) * steps updates. Limits: linear layers; activations stay float. Files hold indices and
entries, decoded to one byte a weight when they are loaded.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from netsuke.core.errors import Problem, UsageError
from netsuke.core.method import Method, register
from netsuke.core.seeds import generator
from netsuke.methods.diffusion._options import check_numbers, patterns

if TYPE_CHECKING:
    import onnx_ir as ir
    from torch import Tensor, nn

    from netsuke.methods.diffusion._sampling import Sampling

NAME = "diffusion/vq4dit"


@dataclass(frozen=True)
class Vq4Dit:
    """entries, length  of a layer's codebook: log2(entries) / length bits a weight
    layers       patterns joined by +; linear layers that match are quantized
    blocks       the modules whose outputs are compared
    assignments  False: the codebook alone is trained, for as many rounds
    rounds       sampling runs for the assignments; entry_rounds: for the codebook; batch: images in each
    rate         of z (RMSprop); entry_rate: of entries, in steps of 1 / 127; bias_rate
    limit        share at which a vector is decided
    """

    entries: int = 16
    length: int = 2
    layers: str = "blocks.*"
    blocks: str = "blocks.*"
    assignments: bool = True
    rounds: int = 12
    entry_rounds: int = 12
    batch: int = 32
    rate: float = 5e-2
    entry_rate: float = 5e-2
    bias_rate: float = 1e-4
    limit: float = 0.99

    def __post_init__(self) -> None:
        limits = {"entries": (2, 256), "length": (1, 64), "rounds": (0, 1e6), "entry_rounds": (0, 1e6)}
        rates = {"batch": (1, 1e6), "rate": (0, 10), "entry_rate": (0, 100), "bias_rate": (0, 1), "limit": (0.5, 1)}
        check_numbers(self, NAME, limits | rates)


@dataclass
class Vectors:
    """network  with int8 codes that are entries of codebooks; sampling: what it was calibrated for
    facts    bits per weight, share of vectors that left their nearest entry
    losses   mean loss of every round
    """

    network: nn.Module
    sampling: Sampling
    facts: dict[str, float] = field(default_factory=dict)
    losses: list[float] = field(default_factory=list)

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
        """The canonical graph with codes behind DequantizeLinear; `compile_program` takes it."""
        from netsuke.capture import capture

        return capture(self.network, shape=self.sampling.shapes, dtype=self.sampling.dtypes)


def apply(model: nn.Module, sampling: Sampling, config: Vq4Dit = Vq4Dit()) -> Vectors:
    """Cluster, calibrate, store."""
    from netsuke.methods.diffusion._vector import coded, vector_layers

    student = _clustered(model, sampling, config)
    losses = []
    if config.assignments:
        losses = _train(model, student, sampling, config, config.rounds, entries=False)
        _finish(student)
        losses += _train(model, student, sampling, config, config.entry_rounds, entries=True, first=config.rounds)
    else:
        _finish(student, nearest=True)
        losses = _train(model, student, sampling, config, config.rounds + config.entry_rounds, entries=True)
    layers = [layer for _, layer in vector_layers(student)]
    weights = [layer.shape[0] * layer.shape[1] for layer in layers]
    facts = {
        "bits_per_weight": sum(w * m.stored_bits() for w, m in zip(weights, layers, strict=True)) / sum(weights),
        "moved": sum(w * m.moved() for w, m in zip(weights, layers, strict=True)) / sum(weights),
    }
    return Vectors(coded(student), sampling, facts, losses)


def _clustered(model: nn.Module, sampling: Sampling, config: Vq4Dit) -> nn.Module:
    """A copy with every chosen layer's weights clustered; nothing of it trains yet."""
    import copy

    from torch import nn

    from netsuke.methods.diffusion._tuned import matching
    from netsuke.methods.diffusion._vector import VectorLinear

    linear = [n for n, m in model.named_modules() if isinstance(m, nn.Linear)]
    chosen = matching(linear, patterns(config.layers), NAME)
    uneven = [n for n in chosen if model.get_submodule(n).in_features % config.length]  # type: ignore[operator]
    if uneven:
        raise UsageError([Problem("inputs are no whole vectors", n, hint=f"length={config.length}") for n in uneven])
    made = copy.deepcopy(model).eval()
    for p in made.parameters():
        p.requires_grad_(False)
    for name in chosen:
        parent, _, leaf = name.rpartition(".")
        layer: Any = made.get_submodule(name)
        rng = generator(sampling.seed, "vq4dit", name)
        setattr(made.get_submodule(parent), leaf, VectorLinear(layer, config.entries, config.length, rng))
    return made


def _finish(student: nn.Module, *, nearest: bool = False) -> None:
    """Every vector takes the larger of its shares, or the nearest entry."""
    import torch

    from netsuke.methods.diffusion._vector import vector_layers

    for _, layer in vector_layers(student):
        with torch.no_grad():
            if nearest:
                layer.z.fill_(8.0)
        layer.decide(0.0)


def _train(
    model: nn.Module,
    student: nn.Module,
    sampling: Sampling,
    config: Vq4Dit,
    rounds: int,
    *,
    entries: bool,
    first: int = 0,
) -> list[float]:
    """One update per sampling step, each network on its own samples; entries False trains assignments and biases."""
    import torch

    from netsuke.methods.diffusion._sampling import finite
    from netsuke.methods.diffusion._vector import vector_layers
    from netsuke.nn.diffusion import angles, move, times

    layers = [layer for _, layer in vector_layers(student)]
    groups: list[dict[str, Any]] = [{"params": [m.bias for m in layers if m.bias is not None], "lr": config.bias_rate}]
    main = [m.entries if entries else m.z for m in layers]
    groups.append({"params": main, "lr": config.entry_rate if entries else config.rate})
    for group in groups:
        for p in group["params"]:
            p.requires_grad_(True)
    optimizer = torch.optim.RMSprop(groups)
    path, losses = angles(sampling.steps), []
    for round_ in range(rounds):
        noise, labels = sampling.start(config.batch, first + round_ + 1)
        ours, theirs, total = noise, noise, 0.0
        for step, now in enumerate(times(sampling.steps)):
            t = torch.full((len(noise),), now)
            with torch.no_grad():
                v, wanted = _with_blocks(model, config, theirs, t, labels)
            mine, found = _with_blocks(student, config, ours, t, labels)
            hidden = torch.stack([((found[n] - wanted[n]) ** 2).mean() for n in wanted]).mean()
            loss = hidden if entries else hidden + sum(m.undecided() for m in layers)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            if not entries:
                for layer in layers:
                    layer.decide(config.limit)
            total += finite(hidden, NAME)
            with torch.no_grad():
                theirs, ours = move(theirs, v, path[step], path[step + 1]), move(ours, mine, path[step], path[step + 1])
        losses.append(total / sampling.steps)
    for group in groups:
        for p in group["params"]:
            p.requires_grad_(False)
    return losses


def _with_blocks(network: nn.Module, config: Vq4Dit, *inputs: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
    """Output (detached) and the outputs of the blocks: modules that match and stand in no other that does."""
    from netsuke.methods.diffusion._tuned import matching

    names = matching([n for n, _ in network.named_modules()], patterns(config.blocks), NAME)
    names = [n for n in names if not any(n.startswith(o + ".") for o in names)]
    found: dict[str, Tensor] = {}
    hooks = [
        network.get_submodule(n).register_forward_hook(lambda _m, _i, out, n=n: found.__setitem__(n, out))
        for n in names
    ]
    try:
        v = network(*inputs)
    finally:
        for hook in hooks:
            hook.remove()
    return v.detach(), found


METHOD = register(
    Method(
        name=NAME,
        purpose="diffusion transformers in 2-bit vectors of a codebook, assignments calibrated with it, no data",
        paper="vq4dit",
        config=Vq4Dit,
        apply=apply,
        needs=("gradients", "training"),
        touches=("weights",),
        exports=("wlinear",),
        cost="(rounds + entry_rounds) * steps updates of the network, no data",
        tags=("denoiser",),
    )
)
