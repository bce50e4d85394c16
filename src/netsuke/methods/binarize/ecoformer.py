"""EcoFormer: attention over learned binary hash codes of queries and keys, linear in the tokens.

Paper: EcoFormer: Energy-Saving Attention with Linear Complexity, Liu et al. 2022 (arXiv 2209.09004); ledger row
ecoformer.
Idea: keep who is close to whom, in b signs a token; products of signs are additions, and they can be summed over keys
before any query asks.
Equations: see `netsuke.nn.hash_attention`; A is learned greedily, bit by bit, towards +1 for the 10 closest and -1
for the 10 farthest tokens of an image (a quarter of the tokens where there are fewer than 40).
Differences: the numerator adds (b + 1) sum_j v_j, as the formula asks; sigma and the mean features are fixed when the
hash is learned; 8-bit levels for v; a row of A moves by larger steps (0.5) than published, which left it near its
start.
Cost: `learn` takes seconds a layer; then training as usual. Limits: weights of a key lie between 1 and 2 b + 1, so
attention cannot be sharp; no masks.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from netsuke.core.method import Method, register

if TYPE_CHECKING:
    from torch import Tensor, nn


@dataclass(frozen=True)
class Config:
    """bits of a code and number of anchors; seed of the random planes the hash starts from."""

    bits: int = 16
    anchors: int = 25
    seed: int = 0


def apply(model: nn.Module, config: Config, *, keep: Sequence[str] | None = None) -> nn.Module:
    """Swap every attention for one over hash codes, in place. q's weights become those of q and k. Then `learn`."""
    import torch

    from netsuke.methods.binarize._attention import chosen_attentions, place, projections
    from netsuke.nn.hash_attention import HashAttention

    generator = torch.Generator().manual_seed(config.seed)
    for name, module in chosen_attentions(model, keep).items():
        q, _, v, proj = projections(module)
        heads = int(module.heads)  # type: ignore[arg-type]
        made = HashAttention(q, v, proj, heads, q.in_features, config.bits, config.anchors)
        with torch.no_grad():  # random planes and anchors, until `learn` finds better ones
            made.anchor.copy_(
                torch.nn.functional.normalize(torch.randn(made.anchor.shape, generator=generator), dim=-1)
            )
            made.planes.copy_(torch.randn(made.planes.shape, generator=generator))
        place(model, name, made)
    return model


def learn(model: nn.Module, x: Tensor, config: Config) -> None:
    """Learn the hash of every layer, first to last, from one batch of inputs x of the model."""
    import torch

    from netsuke.nn.hash_attention import HashAttention, learn_hash

    for module in [m for m in model.modules() if isinstance(m, HashAttention)]:
        seen: list[Tensor] = []
        handle = module.register_forward_pre_hook(lambda _m, inputs, s=seen: s.append(inputs[0].detach()))
        with torch.no_grad():
            model(x)
        handle.remove()
        learn_hash(module, seen[0], seed=config.seed)


METHOD = register(
    Method(
        name="binarize/ecoformer",
        purpose="attention over learned binary hash codes: additions on packed bits, linear in the tokens",
        paper="ecoformer",
        config=Config,
        apply=apply,
        needs=("training",),
        touches=("activations",),
        exports=("bmatmul",),
        status="trial",
        cost="seconds a layer to learn the hash, then fine-tuning",
        tags=("attention",),
    )
)
