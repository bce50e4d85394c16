"""The support matrix: layer x format x instruction set, asked of the runtime itself.

Every row is a tiny program; the name of the kernel that the runtime chooses for it is the answer, so the table cannot
promise what no code does. A format that the operator set refuses has no kernel: a network may use it in simulation.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from netsuke.core.errors import NetsukeError
from netsuke.engine.engine import load
from netsuke.engine.native import instruction_sets
from netsuke.formats import MINIFLOATS, accumulator_bound, f32_to_bf16
from netsuke.program import Node, Port, Program, stored_bits

Array = np.ndarray[Any, Any]
F32 = np.float32
CHANNELS = 64
_BF16 = "float32 -> bfloat16"


@dataclass
class Support:
    """One row.

    layer, weights, activations  what is asked for
    stored      bits of a weight in the file, rounded up; None without a kernel
    loaded      "decoded": indices into a table ("16 x 4 int8": 16 entries of 4 codes), decoded by the loader
    kernels     instruction set -> kernel that runs it; empty: no kernel, the format can only be simulated
    """

    layer: str
    weights: str
    activations: str
    stored: int | None = None
    kernels: dict[str, str] = field(default_factory=dict)
    loaded: str = ""

    @property
    def status(self) -> str:
        return "packed" if self.kernels else "simulated"


def _codes(bits: int, shape: tuple[int, ...]) -> Array:
    """All symmetric codes of `bits` bits, mixed, so that neither fewer bits nor a table holds them."""
    high = 2 ** (bits - 1) - 1
    every = np.array([-1, 1]) if bits == 1 else np.arange(-high, high + 1)
    drawn = np.random.default_rng(0).choice(every, shape).astype(np.int8)
    drawn.reshape(-1)[:2] = every[0], every[-1]
    return drawn


def _table(entries: int, length: int, shape: tuple[int, ...], dtype: type) -> Array:
    """Weights made of a few different vectors."""
    rng = np.random.default_rng(0)
    table: Array = rng.integers(-127, 128, (entries, length)).astype(dtype)
    return table[rng.integers(0, entries, int(np.prod(shape)) // length)].reshape(shape)


def _integer(op: str, w: Array, bits: int, activation: int) -> Program:
    attrs: dict[str, Any] = {"x_zero": 0, "acc_bound": int(accumulator_bound(w, 0).max()), "hi": 2**activation - 1}
    image = op.startswith("qconv")
    if image:
        attrs |= {"strides": [1, 1], "pads": [1, 1, 1, 1], "groups": CHANNELS // w.shape[3]}
    if op.endswith("_dyadic"):
        scale = {"m": np.full(CHANNELS, 2**30, np.int32), "e": np.full(CHANNELS, 40, np.int32)}
    else:
        scale = {"mult": np.full(CHANNELS, 0.01, F32)}
    names = [*scale, "", "", ""][:4]
    return _program(Node(op, f"w{bits}", ["x", "w", *names], ["y"], attrs), {"w": w, **scale}, "u8", image=image)


def _program(node: Node, constants: dict[str, Array], dtype: str, *, image: bool = False, out: str = "") -> Program:
    shape: tuple[int | str, ...] = ("N", 8, 8, CHANNELS) if image else ("N", CHANNELS)
    return Program("probe", [Port("x", dtype, shape)], [Port("y", out or dtype, shape)], [node], constants)


def _wlinear(w: Array, form: str, compute: str) -> Program:
    names = ["x", "w", "scale", "", ""]
    attrs: dict[str, Any] = {"group": 32, "format": form, "compute": compute}
    return _program(Node("wlinear", "l", names, ["y"], attrs), {"w": w, "scale": np.ones((CHANNELS, 2), F32)}, "f32")


def _probes() -> Iterator[tuple[Support, Program]]:
    shapes = {"conv": (CHANNELS, 3, 3, CHANNELS), "depthwise conv": (CHANNELS, 3, 3, 1), "linear": (CHANNELS, CHANNELS)}
    for layer, shape in shapes.items():
        op = "qlinear" if layer == "linear" else "qconv"
        for bits in (8, 6, 5, 4, 3, 2, 1):
            w = _codes(bits, shape)
            for activation in (8, 4):
                yield Support(layer, f"int{bits}", f"uint{activation}"), _integer(op, w, bits, activation)
        w = _codes(8, shape)
        yield Support(f"{layer}, dyadic", "int8", "uint8"), _integer(f"{op}_dyadic", w, 8, 8)
        for entries, length in ((16, 1), (8, 1), (16, 4)):
            probe = _integer(op, _table(entries, length, shape, np.int8), 8, 8)
            yield Support(layer, f"{entries} x {length} int8", "uint8"), probe
        yield Support(layer, "bfloat16", _BF16), _halves(np.ones(shape, F32))
    node = Node("qmatmul", "m", ["x", "x"], ["y"], {"a_zero": 0, "b_zero": 0, "mult": 0.01, "trans_b": 1})
    product = Program("p", [Port("x", "u8", ("M", 64))], [Port("y", "u8", ("M", "M"))], [node])
    yield Support("batched matmul", "uint8", "uint8"), product
    node = Node("matmul", "m", ["x", "x"], ["y"], {"trans_b": 1, "compute": "bf16"})
    product = Program("p", [Port("x", "f32", ("M", 64))], [Port("y", "f32", ("M", "M"))], [node])
    yield Support("batched matmul", "bfloat16", _BF16), product
    for bits in (8, 4, 3, 2):
        for compute, word in (("f32", "float32"), ("bf16", _BF16), ("s8", "float32 -> int8")):
            w = _codes(bits, (CHANNELS, CHANNELS))
            yield Support("linear, weights in groups", f"int{bits}", word), _wlinear(w, "int", compute)
    for form in MINIFLOATS:
        finite = np.arange(MINIFLOATS[form].largest_code + 1)
        codes = np.concatenate([finite, finite + 2 ** (MINIFLOATS[form].bits - 1)])
        w = np.random.default_rng(0).choice(codes, (CHANNELS, CHANNELS)).astype(np.uint8)
        yield Support("linear, weights in groups", form, "float32"), _wlinear(w, form, "f32")
        yield Support("linear, weights in groups", form, _BF16), _wlinear(w, form, "bf16")
    for layer in ("conv", "depthwise conv"):
        for form in ("int4 in groups", *MINIFLOATS):
            w = _codes(4, shapes[layer]) if form not in MINIFLOATS else np.ones(shapes[layer], np.uint8)
            yield Support(layer, form, "float32"), _float_conv(w)

    floats = _table(64, 4, shapes["conv"], F32)
    yield Support("conv", "64 x 4 float32", "float32"), _float_conv(floats)


def _float_conv(w: Array) -> Program:
    """A float convolution; codes for weights no operator takes today, and the runtime says so."""
    attrs: dict[str, Any] = {"strides": [1, 1], "pads": [1, 1, 1, 1], "groups": CHANNELS // w.shape[3]}
    return _program(Node("conv", "c", ["x", "w", "", ""], ["y"], attrs), {"w": w}, "f32", image=True)


def _halves(w: Array) -> Program:
    probe = _float_conv(w) if w.ndim == 4 else _program(Node("linear", "l", ["x", "w", "", ""], ["y"]), {"w": w}, "f32")
    return replace(probe, constants={"w": f32_to_bf16(w)}, bf16={"w"})


def support(isas: Iterable[str] | None = None) -> list[Support]:
    """The matrix for these instruction sets; default: all that this CPU has."""
    found = [name for name, here in instruction_sets().items() if here] if isas is None else list(isas)
    rows = []
    for row, program in _probes():
        for isa in found:
            try:
                found_kernel = load(program, threads=1, isa=isa).kernels()[0]
            except NetsukeError:  # refused: that is the answer
                continue
            row.kernels[isa] = found_kernel["kernel"]
            row.loaded = "decoded" if "decoded" in found_kernel.get("stored", "") else ""
        weights = program.nodes[0].inputs[1]
        row.stored = stored_bits(program, weights) if row.kernels and weights in program.constants else None
        rows.append(row)
    return rows
