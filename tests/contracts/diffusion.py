"""How the contract tests exercise a method of the room `diffusion`: two sampling steps of a tiny network."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from netsuke.core.method import Method
from netsuke.methods.diffusion._sampling import Sampling
from netsuke.methods.diffusion._vector import CodedLinear
from netsuke.models.dit import DiT
from netsuke.nn.qlayers import QuantLayer

SMALL = {"rounds": 1, "time_rounds": 1, "entry_rounds": 1, "batch": 8, "measured": 0, "iterations": 4}


@dataclass
class Observation:
    """Bytes of the samples, what differs from the float network, and that no data are asked for."""

    result: bytes
    touched: set[str]
    reads_data: bool


def _network(seed: int) -> nn.Module:
    torch.manual_seed(seed)
    made = DiT(width=8, depth=1, heads=2, size=4)
    nn.init.normal_(made.blocks[0].modulation.weight, std=0.3)  # type: ignore[union-attr, arg-type]
    return made.eval()


def exercise(method: Method, seed: int) -> Observation:
    """Apply the method with little training; its samples, and what it changed."""
    sampling = Sampling(steps=2, shape=(1, 4, 4), count=8, seed=seed)
    fields = {f.name for f in dataclasses.fields(method.config)}
    options: dict[str, Any] = {k: v for k, v in SMALL.items() if k in fields}
    if "layers" in fields:
        options["layers"] = "blocks.*"
    network = _network(seed)
    made = method.apply(network, sampling, method.config(**options))
    noise, labels = sampling.start(8, 99)
    return Observation(made.images(noise, labels).numpy().tobytes(), _touched(network, made), reads_data=False)


def _touched(network: nn.Module, made: Any) -> set[str]:
    """What differs: the matrix of the first feed-forward layer, and whether its input is put on a grid."""
    name, found = "blocks.0.mlp.0", set()
    tuned = made.networks[0] if hasattr(made, "networks") else made.network
    layer = tuned.layers()[name] if hasattr(tuned, "layers") else tuned.get_submodule(name)
    weight = network.get_submodule(name).weight
    if isinstance(layer, QuantLayer):
        served = layer.serve()
        weights, reads = served.codes * served.scale[:, None], bool(layer.source.ready)
    elif isinstance(layer, CodedLinear):
        weights, reads = layer.codes * layer.scale[:, None], False
    else:
        weights, reads = layer.weight(), layer.reads is not None
    if not torch.equal(weights, weight):  # type: ignore[arg-type]
        found.add("weights")
    return found | ({"activations"} if reads else set())
