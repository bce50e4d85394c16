"""OdysseyLLM: the packed W4A8 product, exact and faster than float at batch 1.

Paper: 4-bit weights with one scale per channel and activations quantized per token run on 8-bit units without
unpacking group by group, several times faster than float.
Checked: one matrix-vector product of 4096 x 4096 on one thread: W4A8 with a scale per channel, the same in groups of
32, and float32 by this engine and by PyTorch, taken in turns, the least time of each. `static_ms` is the same layer
with a fixed activation scale, whose 4-bit codes are unpacked to bytes when the file is loaded. Exact: the packed
product equals the simulation of docs/numerics.md section 12 in every bit; the file holds half a byte a weight; the
kernel reads packed weights. Statistical: at least twice the speed of either float product, and not slower than
weights in groups (5 % are left to noise).
"""

from __future__ import annotations

import time
from typing import Any

import numpy as np

from netsuke import engine
from netsuke.formats import accumulator_bound, dynamic_linear, quantize_groups
from netsuke.papers.claim import Claim, Compare, Context, Outcome, register
from netsuke.program import Node, Port, Program, stored_bytes

SIZE = 4096
F32 = np.float32


def programs(seed: int) -> dict[str, Program]:
    """One linear layer four ways."""
    rng = np.random.default_rng(seed)
    real = (rng.standard_normal((SIZE, SIZE)) / 64).astype(F32)
    w = np.clip(np.rint(real * 7 / np.abs(real).max(1, keepdims=True)), -7, 7).astype(np.int8)
    mult = (np.abs(real).max(1) / 7 * 0.02).astype(F32)
    attrs: dict[str, Any] = {"x_zero": 128, "acc_bound": int(accumulator_bound(w, 128).max()), "out": "f32"}
    static = Node("qlinear", "l", ["x", "w", "m", "", "", ""], ["y"], attrs)
    packed = Node("wlinear", "l", ["x", "w", "s", "", ""], ["y"], {"group": SIZE, "compute": "s8"})
    codes, scale, _ = quantize_groups(real, 4, 32, symmetric=True)
    grouped = Node("wlinear", "l", ["x", "w", "s", "", ""], ["y"], {"group": 32, "compute": "s8"})
    plain = Node("linear", "l", ["x", "w", "", ""], ["y"])

    def made(node: Node, dtype: str, constants: dict[str, Any]) -> Program:
        return Program("l", [Port("x", dtype, ("N", SIZE))], [Port("y", "f32", ("N", SIZE))], [node], constants)

    return {
        "w4a8": made(packed, "f32", {"w": w, "s": (np.abs(real).max(1, keepdims=True) / 7).astype(F32)}),
        "static": made(static, "u8", {"w": w, "m": mult}),
        "groups": made(grouped, "f32", {"w": codes, "s": scale}),
        "float": made(plain, "f32", {"w": real}),
    }


def measure(context: Context, seed: int) -> Outcome:
    """Exactness on 8 rows, times at one row."""
    import torch

    torch.set_num_threads(1)
    made = programs(seed)
    loaded = {name: engine.load(p, threads=1) for name, p in made.items()}
    rng = np.random.default_rng(seed)
    x8, rows = rng.integers(0, 256, (1, SIZE)).astype(np.uint8), rng.standard_normal((8, SIZE)).astype(F32)
    xf = rows[:1]
    constants = made["w4a8"].constants
    wanted = dynamic_linear(rows, constants["w"], constants["s"], None, None, SIZE)
    exact = bool(np.array_equal(np.asarray(loaded["w4a8"](rows)), wanted))
    weight = torch.from_numpy(made["float"].constants["w"])
    runs: dict[str, Any] = {
        "w4a8": lambda: loaded["w4a8"](xf),
        "static": lambda: loaded["static"](x8),
        "groups": lambda: loaded["groups"](xf),
        "float": lambda: loaded["float"](xf),
        "pytorch": lambda: torch.nn.functional.linear(torch.from_numpy(xf), weight),
    }
    best = dict.fromkeys(runs, 1e9)
    for _ in range(40):
        for name, run in runs.items():
            started = time.perf_counter()
            run()
            best[name] = min(best[name], time.perf_counter() - started)
    context.progress(f"seed {seed}: " + ", ".join(f"{n} {1e3 * t:.3f} ms" for n, t in best.items()))
    kernel = loaded["w4a8"].kernels()[0]
    return Outcome(
        exact={
            "the packed product equals the simulation": exact,
            "half a byte a weight": stored_bytes(made["w4a8"], ["w"]) == SIZE * SIZE // 2,
            "a kernel for packed weights runs it": "a8w4" in kernel["kernel"],
        },
        figures={f"{n}_ms": 1e3 * t for n, t in best.items()}
        | {
            "times_float": best["float"] / best["w4a8"],
            "times_pytorch": best["pytorch"] / best["w4a8"],
            "times_groups": best["groups"] / best["w4a8"],
        },
    )


CLAIM = register(
    Claim(
        id="odysseyllm/gemm",
        paper="odysseyllm",
        sentence="The packed W4A8 product is exact, and at batch 1 twice as fast as float and no slower than groups.",
        baseline="float32 of this engine and of PyTorch; 4-bit weights in groups of 32",
        measure=measure,
        compares=(
            Compare("times_float", "", 2.0),
            Compare("times_pytorch", "", 2.0),
            Compare("times_groups", "", 0.95),
        ),
        minutes=0.5,
        methods=("quantize/odysseyllm",),
    )
)
