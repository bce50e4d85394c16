"""LSTM and GRU as ONNX defines them, in f64, rounded to f32 at the end. Gates: i o f c (lstm), z r h (gru)."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from netsuke.program.reference.call import Array, Call, rule

# One direction: x [T,B,I], w, r, bias of inputs and of state, h0 [B,H], c0 [B,H] -> y [T,B,H], h, c.
Cell = Callable[[Array, Array, Array, Array, Array], tuple[Array, Array]]


def _sigmoid(x: Array) -> Array:
    return np.asarray(0.5 * (1.0 + np.tanh(0.5 * x)))


def _lstm_cell(gates_x: Array, r: Array, bias_r: Array, h: Array, c: Array) -> tuple[Array, Array]:
    i, o, f, g = np.split(gates_x + h @ r.T + bias_r, 4, axis=-1)
    c = _sigmoid(f) * c + _sigmoid(i) * np.tanh(g)
    return _sigmoid(o) * np.tanh(c), c


def _gru_cell(linear_before_reset: bool) -> Cell:
    def cell(gates_x: Array, r: Array, bias_r: Array, h: Array, c: Array) -> tuple[Array, Array]:
        hidden = h.shape[-1]
        z, reset = np.split(
            _sigmoid(gates_x[:, : 2 * hidden] + h @ r[: 2 * hidden].T + bias_r[: 2 * hidden]), 2, axis=-1
        )
        r_h, b_h = r[2 * hidden :], bias_r[2 * hidden :]
        state = reset * (h @ r_h.T + b_h) if linear_before_reset else (reset * h) @ r_h.T + b_h
        new = np.tanh(gates_x[:, 2 * hidden :] + state)
        return (1.0 - z) * new + z * h, c

    return cell


def _run(call: Call, cell: Cell, gates: int) -> list[Array]:
    x = call.array(0).astype(np.float64)
    w, r = call.array(1).astype(np.float64), call.array(2).astype(np.float64)
    hidden, directions = call.integer("hidden"), w.shape[0]
    if x.ndim != 3 or x.shape[2] != w.shape[2]:
        raise call.wrong("x must be [T, B, I] with I as in w")
    steps, batch = x.shape[:2]
    bias = call.inputs[3]
    b = np.zeros((directions, 2 * gates * hidden)) if bias is None else bias.astype(np.float64)
    start = []
    for index in (5, 6)[: len(call.inputs) - 5]:
        given = call.inputs[index]
        if given is not None and given.shape != (directions, batch, hidden):
            raise call.wrong("wrong shape of the initial state", given.shape, str((directions, batch, hidden)))
        start.append(np.zeros((directions, batch, hidden)) if given is None else given.astype(np.float64))
    y = np.zeros((steps, directions, batch, hidden))
    finals: list[list[Array]] = [[], []]
    for d in range(directions):
        h, c = start[0][d], start[-1][d]
        bias_w, bias_r = np.split(b[d], 2)
        backwards = call.word("direction") == "reverse" or d == 1
        for t in reversed(range(steps)) if backwards else range(steps):
            h, c = cell(x[t] @ w[d].T + bias_w, r[d], bias_r, h, c)
            y[t, d] = h
        finals[0].append(h)
        finals[1].append(c)
    results = [y, np.stack(finals[0]), np.stack(finals[1])]
    return [v.astype(np.float32) for v in results[: len(call.node.outputs)]]


@rule("lstm")
def _lstm(call: Call) -> list[Array]:
    return _run(call, _lstm_cell, 4)


@rule("gru")
def _gru(call: Call) -> list[Array]:
    return _run(call, _gru_cell(bool(call.integer("linear_before_reset"))), 3)
