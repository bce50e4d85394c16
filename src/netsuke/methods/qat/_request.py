"""What `prepare` was asked for, and the plan row of a layer."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import torch
from torch import nn

from netsuke.core.plan import Plan, Row
from netsuke.methods.qat._rules import Rules

LAYERS = (nn.Conv1d, nn.Conv2d, nn.Linear)
BITS = (2, 3, 4, 5, 6, 7, 8)
Shape = tuple[int, ...] | Mapping[str, Sequence[int]]
Dtype = str | Mapping[str, str]
_WHOLE = {"i64": torch.int64, "i32": torch.int32, "bool": torch.bool}


@dataclass(frozen=True)
class Bits:
    """Widths of one layer: of its weights, and of the tensor it reads."""

    weight: int
    activation: int


@dataclass
class Request:
    """What `prepare` was asked for, checked. stream: bits of what operators without weights read."""

    rules: Rules
    method: str
    bits: dict[str, Bits]
    default: Bits
    keep: list[str]
    shape: Shape
    dtype: Dtype = "f32"
    stream: int | None = None
    plan: Plan = field(default_factory=Plan)

    def inputs(self) -> list[tuple[tuple[int, ...], torch.dtype]]:
        """Shape and dtype of each input."""
        if not isinstance(self.shape, Mapping):
            return [(tuple(self.shape), torch.float32)]
        kinds = self.dtype if isinstance(self.dtype, Mapping) else dict.fromkeys(self.shape, self.dtype)
        return [(tuple(size), _WHOLE.get(kinds.get(name, "f32"), torch.float32)) for name, size in self.shape.items()]


def row(request: Request, name: str, op: str, layer: nn.Module, reason: str = "", *, kept: bool = False) -> Row:
    """A plan row of a layer."""
    width, count = request.bits[name], sum(p.numel() for p in layer.parameters())
    if kept:
        return Row(name, op, 32, 32, reason=reason, bytes_before=4 * count, bytes_after=4 * count)
    made = Row(name, op, width.weight, width.activation, method=request.method, granularity="channel", reason=reason)
    weights = layer.weight.numel()  # type: ignore[operator]
    made.bytes_before, made.status = 4 * count, "packed"
    made.bytes_after = (int(weights) * width.weight + 7) // 8 + 4 * (count - int(weights))
    return made
