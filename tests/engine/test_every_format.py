"""Emulated answers are the engine's answers on every image, for every row of the support matrix that is packed.

The shipped digits network (and two small ones for depthwise convolutions and batched products, which it has not) is
quantized once at 8 bits; then its weights are put on the grid of each format, so that every kernel family sees weights
of that very form.
"""

from __future__ import annotations

from dataclasses import replace
from functools import cache
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from netsuke.capture import capture
from netsuke.data import load_data
from netsuke.engine import load
from netsuke.engine.support import support
from netsuke.formats import MINIFLOATS, accumulator_bound, f32_to_bf16
from netsuke.formats.minifloat import decode
from netsuke.methods.codebook._codebook import kmeans
from netsuke.methods.quantize import ptq, weight_only
from netsuke.models import build
from netsuke.passes import compile_program
from netsuke.pipeline.runner import EngineRunner
from netsuke.program import Program, stored_bits
from netsuke.program.emulate import Emulation

SHAPE = (1, 1, 8, 8)
INTEGER = ("qconv", "qlinear")


class Depthwise(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.stem, self.deep = nn.Conv2d(1, 16, 3, padding=1), nn.Conv2d(16, 16, 3, padding=1, groups=16)
        self.head = nn.Linear(16 * 4, 10)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        h = torch.relu(self.deep(torch.relu(self.stem(x))))
        return self.head(torch.flatten(nn.functional.max_pool2d(h, 4), 1))


class Products(nn.Module):
    """Every image's channels times each other: a batched product of two activations."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.head = nn.Conv2d(1, 8, 3, padding=1), nn.Linear(64, 10)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        h = torch.relu(self.stem(x)).flatten(2)
        return self.head(torch.flatten(h @ h.transpose(1, 2), 1))


@cache
def graph(name: str) -> Any:
    torch.manual_seed(0)
    made = {"depthwise": Depthwise, "products": Products}
    return capture(made[name]().eval() if name in made else build(name), shape=SHAPE)


@cache
def images() -> np.ndarray:
    return np.concatenate([x for x, _ in load_data("digits:test").batches(128)])


@cache
def quantized(name: str, activation_bits: int, dyadic: bool = False) -> Program:
    steps = [f"quantize/uniform:weight_bits=8,activation_bits={activation_bits},ends=0"]
    calib, runner = load_data("digits:train").take(64, 0), EngineRunner(1)
    recipe = "cpu-int8-dyadic" if dyadic else steps
    plan = ptq.make_plan(graph(name), recipe=recipe, calib=calib, runner=runner, effort="fast")
    return compile_program(ptq.quantize(graph(name), plan=plan, calib=calib, runner=runner), name=name)


def vectors(w: np.ndarray, entries: int, length: int) -> np.ndarray:
    book = kmeans(w.reshape(-1, length).astype(np.float64), entries, np.random.default_rng(0))
    parts = book.entries.round() if w.dtype == np.int8 else book.entries
    return np.asarray(parts)[book.indices].reshape(w.shape).astype(w.dtype)


def narrow(w: np.ndarray, bits: int) -> tuple[np.ndarray, np.ndarray]:
    """Codes of `bits` bits that use their whole range, and how much larger their step is, per channel."""
    if bits == 1:
        size = np.abs(w.reshape(len(w), -1).astype(np.float64)).mean(1)
        return np.where(w < 0, -1, 1).astype(np.int8), size
    top = 2 ** (bits - 1) - 1
    made = np.clip(np.rint(w * (top / 127 * 1.5)), -top, top).astype(np.int8)
    return made, np.full(len(w), 127 / top / 1.5)


def with_weights(program: Program, change: Any) -> Program:
    """The program with other codes (and steps) in every integer layer."""
    constants, nodes = dict(program.constants), []
    for node in program.nodes:
        if node.op in INTEGER:
            made = change(constants[node.inputs[1]])
            w, factor = made if isinstance(made, tuple) else (made, np.ones(len(made)))
            constants[node.inputs[1]] = w
            constants[node.inputs[2]] = (constants[node.inputs[2]] * factor).astype(np.float32)
            bound = int(np.max(accumulator_bound(w, int(node.attrs["x_zero"]))))
            node = replace(node, attrs={**node.attrs, "acc_bound": bound})
        nodes.append(node)
    return replace(program, nodes=nodes, constants=constants)


def in_floats(form: str, compute: str) -> Program:
    """The head as a weight-only layer whose codes are minifloats, the nearest to its 8-bit integers."""
    program = in_groups(8, compute)
    kind, constants, nodes = MINIFLOATS[form], dict(program.constants), []
    codes = np.concatenate([np.arange(kind.largest_code + 1), np.arange(kind.largest_code + 1) + 2 ** (kind.bits - 1)])
    values = decode(codes.astype(np.uint8), kind).astype(np.float64)
    for node in program.nodes:
        if node.op == "wlinear":
            w = constants[node.inputs[1]].astype(np.float64)
            scaled = w / 127 * values.max()
            nearest = np.abs(scaled[..., None] - values).argmin(-1)
            constants[node.inputs[1]] = codes[nearest].astype(np.uint8)
            constants[node.inputs[2]] = (constants[node.inputs[2]] * (127 / values.max())).astype(np.float32)
            node = replace(node, attrs={**node.attrs, "format": form})
        nodes.append(node)
    return replace(program, nodes=nodes, constants=constants)


@cache
def in_groups(bits: int, compute: str) -> Program:
    recipe = [f"quantize/weight_only:bits={bits},group=32,symmetric=true,compute={compute}"]
    plan = weight_only.make_plan(graph("digits_cnn"), recipe=recipe)
    return compile_program(weight_only.quantize(graph("digits_cnn"), plan=plan), name="digits")


def float_table() -> Program:
    program = compile_program(graph("digits_cnn"), name="digits")
    convs = {n.inputs[1] for n in program.nodes if n.op == "conv"}
    made = {n: vectors(a, 64, 4) if n in convs and a.size >= 512 else a for n, a in program.constants.items()}
    return replace(program, constants=made)


def halves(network: str) -> Program:
    """Weights of all convolutions and linear layers in bfloat16."""
    program = compile_program(graph(network), name=network)
    weights = {n.inputs[1] for n in program.nodes if n.op in ("conv", "linear")}
    stored = {name: f32_to_bf16(a) if name in weights else a for name, a in program.constants.items()}
    return replace(program, constants=stored, bf16=weights)


def half_products() -> Program:
    """The product of two activations on bfloat16."""
    program = compile_program(graph("products"), name="products")
    nodes = [replace(n, attrs={**n.attrs, "compute": "bf16"}) if n.op == "matmul" else n for n in program.nodes]
    return replace(program, nodes=nodes)


CASES: dict[tuple[str, str, str], Any] = {}
for layer, network in (("conv", "digits_cnn"), ("linear", "digits_cnn"), ("depthwise conv", "depthwise")):
    for width in (8, 6, 5, 4, 3, 2, 1):
        for reads in (8, 4):
            CASES[layer, f"int{width}", f"uint{reads}"] = lambda n=network, b=width, a=reads: with_weights(
                quantized(n, a), lambda w: narrow(w, b)
            )
    CASES[f"{layer}, dyadic", "int8", "uint8"] = lambda n=network: quantized(n, 8, dyadic=True)
    for k, length in ((16, 1), (8, 1), (16, 4)):
        CASES[layer, f"{k} x {length} int8", "uint8"] = lambda n=network, k=k, m=length: with_weights(
            quantized(n, 8), lambda w: vectors(w, k, m)
        )
    CASES[layer, "bfloat16", "float32 -> bfloat16"] = lambda n=network: halves(n)
CASES["batched matmul", "uint8", "uint8"] = lambda: quantized("products", 8)
CASES["batched matmul", "bfloat16", "float32 -> bfloat16"] = half_products
for width in (8, 4, 3, 2):
    CASES["linear, weights in groups", f"int{width}", "float32"] = lambda b=width: in_groups(b, "f32")
    CASES["linear, weights in groups", f"int{width}", "float32 -> bfloat16"] = lambda b=width: in_groups(b, "bf16")
    CASES["linear, weights in groups", f"int{width}", "float32 -> int8"] = lambda b=width: in_groups(b, "s8")
for form in MINIFLOATS:
    CASES["linear, weights in groups", form, "float32"] = lambda f=form: in_floats(f, "f32")
    CASES["linear, weights in groups", form, "float32 -> bfloat16"] = lambda f=form: in_floats(f, "bf16")
CASES["conv", "64 x 4 float32", "float32"] = float_table


def test_every_packed_format_of_the_matrix_has_a_case() -> None:
    assert {(r.layer, r.weights, r.activations) for r in support() if r.status == "packed"} == set(CASES)


@pytest.mark.parametrize("case", CASES, ids=lambda c: " ".join(c))
def test_emulated_top1_is_the_engines_on_every_image(case: tuple[str, str, str]) -> None:
    program, (layer, weights, _) = CASES[case](), case
    ops = {node.op for node in program.nodes}
    if weights.startswith("int") and "groups" not in layer and "dyadic" not in layer:
        bits = {stored_bits(program, n.inputs[1]) for n in program.nodes if n.op in INTEGER}
        assert max(bits) == int(weights.removeprefix("int"))
    product = "matmul" if weights == "bfloat16" else "qmatmul"
    wanted_op = {"linear, weights in groups": "wlinear", "batched matmul": product}.get(layer)
    assert wanted_op is None or wanted_op in ops
    assert "dyadic" not in layer or any(op.endswith("_dyadic") for op in ops)
    x, name = images(), program.inputs[0].name
    output = program.outputs[0].name
    ours = np.asarray(load(program, threads=1).run({name: x})[output])
    with torch.no_grad():
        emulated = np.asarray(Emulation(program).run({name: x})[output])
    assert np.array_equal(ours.argmax(1), emulated.argmax(1))
    assert len(np.unique(ours.argmax(1))) > 1  # the network still tells images apart
