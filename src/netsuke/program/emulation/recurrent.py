"""LSTM and GRU step by step in f32."""

from __future__ import annotations

import torch
import torch.nn.functional as functional
from torch import Tensor

from netsuke.program.emulation.call import Call, rule


def _direction(call: Call, d: int, state: list[Tensor], *, gru: bool) -> tuple[Tensor, list[Tensor]]:
    """One direction: outputs [T, B, H] in time order and the last state."""
    x, w, r = call.tensor(0), call.tensor(1)[d], call.tensor(2)[d]
    bias = call.inputs[3]
    b_w, b_r = torch.zeros_like(r[:, 0]), torch.zeros_like(r[:, 0])
    if bias is not None:
        b_w, b_r = bias[d].chunk(2)
    backwards = call.word("direction") == "reverse" or d == 1
    steps = x.flip(0) if backwards else x
    outputs = []
    for step in steps:
        inner = functional.linear(step, w, b_w)
        state = _gru(call, inner, r, b_r, state) if gru else _lstm(inner, r, b_r, state)
        outputs.append(state[0])
    y = torch.stack(outputs) if outputs else x.new_zeros((0, x.shape[1], r.shape[1]))
    return y.flip(0) if backwards else y, state


def _lstm(inner: Tensor, r: Tensor, b_r: Tensor, state: list[Tensor]) -> list[Tensor]:
    h, c = state
    i, o, f, g = (inner + functional.linear(h, r, b_r)).chunk(4, dim=-1)
    c = torch.sigmoid(f) * c + torch.sigmoid(i) * torch.tanh(g)
    return [torch.sigmoid(o) * torch.tanh(c), c]


def _gru(call: Call, inner: Tensor, r: Tensor, b_r: Tensor, state: list[Tensor]) -> list[Tensor]:
    (h,) = state
    x_z, x_r, x_h = inner.chunk(3, dim=-1)
    r_z, r_r, r_h = r.chunk(3)
    b_z, b_reset, b_h = b_r.chunk(3)
    z = torch.sigmoid(x_z + functional.linear(h, r_z, b_z))
    reset = torch.sigmoid(x_r + functional.linear(h, r_r, b_reset))
    if call.integer("linear_before_reset"):
        new = torch.tanh(x_h + reset * functional.linear(h, r_h, b_h))
    else:
        new = torch.tanh(x_h + functional.linear(reset * h, r_h, b_h))
    return [(1.0 - z) * new + z * h]


def _run(call: Call, *, gru: bool) -> list[Tensor]:
    x, w, hidden = call.tensor(0), call.tensor(1), call.integer("hidden")
    given = call.inputs[5:6] if gru else call.inputs[5:7]
    start = [x.new_zeros((w.shape[0], x.shape[1], hidden)) if v is None else v for v in given]
    runs = [_direction(call, d, [v[d] for v in start], gru=gru) for d in range(w.shape[0])]
    results = [torch.stack([y for y, _ in runs], dim=1)]
    results += [torch.stack([state[i] for _, state in runs]) for i in range(len(start))]
    return results[: len(call.node.outputs)]


@rule("lstm")
def _lstm_rule(call: Call) -> list[Tensor]:
    return _run(call, gru=False)


@rule("gru")
def _gru_rule(call: Call) -> list[Tensor]:
    return _run(call, gru=True)
