"""`integer_(model, config)`: a network's convolutions and linear layers become integer layers, in place."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from dataclasses import asdict
from fnmatch import fnmatchcase

import torch
from torch import nn

from netsuke.core.errors import Problem, UnsupportedError, UsageError, near
from netsuke.nn.integer_config import IntegerConfig
from netsuke.nn.integer_train import IntegerConv2d, IntegerLayer, IntegerLinear, make_integer
from netsuke.nn.kept_memory import keep_memory

# Layers with weights whose products would stay float without anyone noticing.
UNSUPPORTED: tuple[type[nn.Module], ...] = (
    nn.Conv1d,
    nn.Conv3d,
    nn.ConvTranspose1d,
    nn.ConvTranspose2d,
    nn.ConvTranspose3d,
    nn.RNNBase,
    nn.RNNCellBase,
    nn.MultiheadAttention,
    nn.Bilinear,
)


def _matches(name: str, patterns: Sequence[str]) -> bool:
    return any(fnmatchcase(name, pattern) for pattern in patterns)


def _inside(name: str, prefixes: Sequence[str]) -> bool:
    return any(name == p or name.startswith(p + ".") for p in prefixes)


def _problem(name: str, module: nn.Module) -> Problem | None:
    what = ""
    if isinstance(module, UNSUPPORTED):
        what = "no integer products for this kind of layer"
    elif isinstance(module, nn.Conv2d) and module.padding_mode != "zeros":
        what = "padding other than zeros"
    elif isinstance(module, nn.Conv2d) and isinstance(module.padding, str) and module.padding != "valid":
        what = "padding given as a word"
    elif isinstance(module, nn.Conv2d | nn.Linear) and module.weight.dtype != torch.float32:
        what = f"master weights of {module.weight.dtype}"
    elif isinstance(module, nn.Conv2d | nn.Linear) and torch.nn.utils.parametrize.is_parametrized(module):
        what = "parametrized weights"
    if not what:
        return None
    return Problem(what, where=name, got=type(module).__name__, hint=f"leave it float: keep_float=[{name!r}]")


def integer_(model: nn.Module, config: IntegerConfig | None = None, *, keep_float: Sequence[str] = ()) -> nn.Module:
    """Swap every Conv2d and Linear for its integer layer and return the same module.

    Parameters stay the same objects, so an optimizer made before keeps working. keep_float: names or patterns
    (`"stem"`, `"head.*"`) of layers left alone. From here on the process keeps freed memory for the next step
    (`netsuke.nn.kept_memory`; `keep_memory(False)` or NETSUKE_KEEP_MEMORY=0 turn that off). Raises UnsupportedError
    listing every layer that cannot be integer and is not excluded, and UsageError for patterns that match nothing;
    nothing is changed then. Layers that are integer already keep their configuration; a network that has no other
    layers is returned as it is, or refused when `config` differs.
    """
    config = config or IntegerConfig()
    named = {name: module for name, module in model.named_modules() if name}
    problems = [
        Problem("the pattern matches no layer", "keep_float", pattern, near(pattern, named))
        for pattern in keep_float
        if not any(fnmatchcase(name, pattern) for name in named)
    ]
    swaps: list[str] = []
    handled: list[str] = []
    if problems:
        raise UsageError(problems)
    for name, module in named.items():
        if _matches(name, keep_float):
            handled.append(name)
        if _inside(name, handled) or isinstance(module, IntegerLayer):
            continue
        problem = _problem(name, module)
        if problem is not None:
            problems.append(problem)
            handled.append(name)
        elif isinstance(module, nn.Conv2d | nn.Linear):
            swaps.append(name)
    if problems:
        raise UnsupportedError(problems, "integer training cannot take these layers")
    if not swaps:
        _check_same(model, config)
    for index, name in enumerate(swaps):
        parent, _, leaf = name.rpartition(".")
        setattr(model.get_submodule(parent) if parent else model, leaf, make_integer(named[name], config, name, index))
    keep_memory()
    return model


def _check_same(model: nn.Module, config: IntegerConfig) -> None:
    """Nothing to swap is fine for a network that trains on with the configuration it has."""
    layers = integer_layers(model)
    if not layers:
        raise UsageError(Problem("no convolution or linear layer to make integer", got=type(model).__name__))
    wanted = asdict(config)
    others = [
        Problem("integer already, with another configuration", name, f"{key} {value}", str(wanted[key]))
        for name, layer in layers.items()
        for key, value in asdict(layer.config).items()
        if value != wanted[key]
    ]
    if others:
        raise UsageError(others, "layers that are integer keep their configuration: make the network anew")


def integer_layers(model: nn.Module) -> dict[str, IntegerConv2d | IntegerLinear]:
    """The integer layers by name."""
    return {n: m for n, m in model.named_modules() if isinstance(m, IntegerConv2d | IntegerLinear)}


def float_network(model: nn.Module) -> nn.Module:
    """A copy in eval mode whose integer layers are ordinary ones with the master weights: what post-training
    quantization of networks trained with more than 8 bits starts from."""
    twin = copy.deepcopy(model).eval()
    for name, layer in integer_layers(twin).items():
        parent, _, leaf = name.rpartition(".")
        plain = nn.Conv2d if isinstance(layer, nn.Conv2d) else nn.Linear
        new = plain.__new__(plain)
        kept = ("_buffers", "_forward_pre_hooks", "_modules", "config", "controller", "adapt", "window")
        nn.Module.__init__(new)
        new.__dict__.update({k: v for k, v in layer.__dict__.items() if k not in kept})
        setattr(twin.get_submodule(parent) if parent else twin, leaf, new)
    return twin
