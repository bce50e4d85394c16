"""Swapping the attention of a transformer for a binary one, and what a student and its teacher are compared by."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from netsuke.core.errors import Problem, UsageError

if TYPE_CHECKING:
    from torch import Tensor, nn

    from netsuke.nn.binarizer import Binarizer
    from netsuke.nn.binary_attention import BinaryAttention
    from netsuke.nn.binary_layers import Layer

    MakeWeights = Callable[[Layer], Binarizer]


def projections(attention: nn.Module) -> tuple[nn.Linear, nn.Linear, nn.Linear, nn.Linear]:
    """q, k, v and output layers of a float attention: separate ones, or the parts of a joint `qkv`."""
    from torch import nn

    if not hasattr(attention, "qkv"):
        q, k, v, proj = (attention.get_submodule(n) for n in ("q", "k", "v", "proj"))
        assert all(isinstance(m, nn.Linear) for m in (q, k, v, proj))
        return q, k, v, proj  # type: ignore[return-value]
    joint, proj = attention.get_submodule("qkv"), attention.get_submodule("proj")
    assert isinstance(joint, nn.Linear)
    assert isinstance(proj, nn.Linear)
    parts = []
    for index, weight in enumerate(joint.weight.detach().chunk(3)):
        part = nn.Linear(joint.in_features, joint.out_features // 3, bias=joint.bias is not None)
        part.weight.data.copy_(weight)
        if joint.bias is not None:
            part.bias.data.copy_(joint.bias.detach().chunk(3)[index])
        parts.append(part)
    return parts[0], parts[1], parts[2], proj


def attentions(model: nn.Module) -> dict[str, nn.Module]:
    """Float attentions inside the model by name: modules with `heads`, `proj` and either `qkv` or `q`, `k`, `v`."""
    from netsuke.nn.binary_attention import BinaryAttention

    return {
        name: m
        for name, m in model.named_modules()
        if name and hasattr(m, "heads") and hasattr(m, "proj") and (hasattr(m, "qkv") or hasattr(m, "q"))
        if not isinstance(m, BinaryAttention)
    }


def chosen_attentions(model: nn.Module, keep: Sequence[str] | None) -> dict[str, nn.Module]:
    """Attentions that no pattern of `keep` names; UsageError when there is none."""
    table = attentions(model)
    kept = _kept(table, keep or ())
    chosen = {name: m for name, m in table.items() if name not in kept}
    if not chosen:
        raise UsageError(Problem("no attention to replace", got=_modules(model), hint=_HINT))
    return chosen


_HINT = "modules with heads, proj and qkv (or q, k, v) are attentions; others use the other binarizers"


def _modules(model: nn.Module) -> str:
    return "modules " + ", ".join(name for name, _ in model.named_children())


@dataclass
class Parts:
    """What `swap` puts in.

    weights, inputs  binarizers of a linear layer; inputs may give None: the layer reads numbers
    hidden           binarizer in front of the second layer of an MLP; None: `inputs`
    levels, rule     see `BinaryAttention`; rule is called once for each attention
    extra, value     from the width, or None
    attention, mlp   which of the two is swapped
    activation       True keeps the function between the two layers of an MLP; a sign behind it needs none
    """

    weights: MakeWeights
    inputs: Callable[[Layer], Binarizer | None]
    rule: Callable[[], nn.Module]
    levels: Callable[[], Binarizer] | None = None
    hidden: Callable[[Layer], Binarizer | None] | None = None
    extra: Callable[[int], nn.Module] | None = None
    value: Callable[[int], nn.Module] | None = None
    attention: bool = True
    mlp: bool = True
    activation: bool = False


def swap(model: nn.Module, parts: Parts, *, keep: Sequence[str] | None = None) -> nn.Module:
    """Replace attentions and MLPs (`nn.Sequential` of linear, activation, linear) in place; returns the model.

    keep  patterns of module names that stay as they are. UsageError when there is nothing to replace.
    """
    from torch import nn

    chosen = attentions(model) if parts.attention else {}
    mlps = {n: m for n, m in model.named_modules() if isinstance(m, nn.Sequential) and _is_mlp(m)} if parts.mlp else {}
    kept = _kept({**chosen, **mlps}, keep or ())
    chosen = {n: m for n, m in chosen.items() if n not in kept}
    mlps = {n: m for n, m in mlps.items() if n not in kept}
    if not chosen and not mlps:
        raise UsageError(Problem("no attention and no MLP to make binary", got=_modules(model), hint=_HINT))
    for name, module in chosen.items():
        place(model, name, binary_attention(module, parts))
    for mlp in mlps.values():
        _binary_mlp(mlp, parts)
    return model


def _is_mlp(module: nn.Sequential) -> bool:
    from torch import nn

    return len(module) == 3 and isinstance(module[0], nn.Linear) and isinstance(module[2], nn.Linear)


def _kept(table: dict[str, nn.Module], keep: Sequence[str]) -> set[str]:
    import fnmatch

    from netsuke.core.errors import near

    found = {pattern: fnmatch.filter(table, pattern) for pattern in keep}
    empty = [Problem("no attention or MLP matches", got=p, allowed=near(p, table)) for p, n in found.items() if not n]
    if empty:
        raise UsageError(empty)
    return {name for names in found.values() for name in names}


def place(model: nn.Module, name: str, module: nn.Module) -> None:
    parent, _, leaf = name.rpartition(".")
    setattr(model.get_submodule(parent), leaf, module)


def binary_attention(module: nn.Module, parts: Parts) -> BinaryAttention:
    """A float attention's weights in a binary one."""
    from netsuke.nn.binary_attention import BinaryAttention
    from netsuke.nn.binary_layers import BinaryLayer

    layers = projections(module)
    made = [BinaryLayer(layer, parts.weights(layer), parts.inputs(layer)) for layer in layers]
    width = layers[0].in_features
    return BinaryAttention(
        (made[0], made[1], made[2], made[3]),
        int(module.heads),  # type: ignore[arg-type]
        parts.levels,
        parts.rule(),
        extra=None if parts.extra is None else parts.extra(width),
        value=None if parts.value is None else parts.value(width),
    )


def _binary_mlp(mlp: nn.Sequential, parts: Parts) -> None:
    from torch import nn

    from netsuke.nn.binary_layers import BinaryLayer

    first, last = mlp[0], mlp[2]
    assert isinstance(first, nn.Linear)
    assert isinstance(last, nn.Linear)
    mlp[0] = BinaryLayer(first, parts.weights(first), parts.inputs(first))
    mlp[2] = BinaryLayer(last, parts.weights(last), (parts.hidden or parts.inputs)(last))
    if not parts.activation:
        mlp[1] = nn.Identity()


@dataclass
class Seen:
    """What one pass showed: (q, k, v) [N, T, C] of every attention, outputs [N, T, C] of every block."""

    qkv: list[tuple[Tensor, Tensor, Tensor]] = field(default_factory=list)
    hidden: list[Tensor] = field(default_factory=list)


@contextmanager
def recorded(model: nn.Module) -> Iterator[Seen]:
    """Collect, while the block runs, what `Seen` holds. Blocks are the modules that directly hold an attention."""
    from netsuke.nn.binary_attention import BinaryAttention

    seen = Seen()
    handles: list[Any] = []
    float_ones = attentions(model)
    for name, module in list(model.named_modules()):
        if isinstance(module, BinaryAttention):
            handles += _watch_parts(module, seen)
        elif name in float_ones:
            handles += _watch_joint(module, seen) if hasattr(module, "qkv") else _watch_parts(module, seen)
        if any(isinstance(c, BinaryAttention) or f"{name}.{n}" in float_ones for n, c in module.named_children()):
            handles.append(module.register_forward_hook(lambda _m, _i, out: seen.hidden.append(out)))
    try:
        yield seen
    finally:
        for handle in handles:
            handle.remove()


def _watch_joint(module: nn.Module, seen: Seen) -> list[Any]:
    def note(_m: object, _i: object, out: Tensor) -> None:
        q, k, v = out.chunk(3, dim=-1)
        seen.qkv.append((q, k, v))

    return [module.get_submodule("qkv").register_forward_hook(note)]


def _watch_parts(module: nn.Module, seen: Seen) -> list[Any]:
    waiting: list[Tensor] = []

    def note(_m: object, _i: object, out: Tensor) -> None:
        waiting.append(out)
        if len(waiting) == 3:
            seen.qkv.append((waiting[0], waiting[1], waiting[2]))
            waiting.clear()

    return [module.get_submodule(n).register_forward_hook(note) for n in ("q", "k", "v")]
