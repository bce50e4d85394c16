"""Weight-only linear layers: exact arithmetic against plain Python, emulation against reference, and refusals."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from netsuke.core.errors import FileError
from netsuke.engine import load
from netsuke.engine.native import instruction_sets
from netsuke.formats import MINIFLOATS, bf16_activations, dynamic_linear, quantize_activations, quantize_groups
from netsuke.formats.minifloat import decode, finite_codes
from netsuke.nn import integer
from netsuke.program import Node, Port, Program, from_bytes, interpreter, to_bytes, verify
from netsuke.program.emulate import Emulation

F32 = np.float32


def program(constants, attrs, depth):
    names = [name if name in constants else "" for name in ("w", "scale", "zero", "bias")]
    node = Node("wlinear", "l", ["x", *names], ["y"], attrs)
    ports = [Port("x", "f32", ("N", depth))], [Port("y", "f32", ("N", constants["w"].shape[0]))]
    return Program("wl", *ports, [node], constants)


def case(seed, bits=4, depth=70, group=32, channels=5, *, zero=True):
    rng = np.random.default_rng(seed)
    w, scale, zeros = quantize_groups(rng.normal(size=(channels, depth)).astype(F32), bits, group, symmetric=not zero)
    constants = {"w": w, "scale": scale, "bias": rng.normal(size=channels).astype(F32)}
    return constants | ({"zero": zeros} if zero else {}), rng.normal(size=(3, depth)).astype(F32)


def slow(x, constants, group):
    """Section 12 of numerics.md with Python integers and one rounding a step."""
    w, scale, zero = constants["w"], constants["scale"], constants.get("zero")
    out = np.zeros((len(x), len(w)), F32)
    for r, row in enumerate(x):
        for o in range(len(w)):
            acc = F32(0)
            for g in range(scale.shape[1]):
                part = row[g * group : (g + 1) * group]
                codes = w[o, g * group : (g + 1) * group].astype(int) - (0 if zero is None else int(zero[o, g]))
                top = F32(max(abs(float(v)) for v in part))
                if not math.isfinite(float(top)) or any(math.isnan(v) for v in part):
                    total, step = 0, F32(np.nan)
                elif top < F32(2.0**-100):
                    total, step = 0, F32(0)
                else:
                    q = [int(np.rint(F32(v) * (F32(127) / top))) for v in part]
                    total, step = sum(a * int(b) for a, b in zip(q, codes, strict=True)), top / F32(127)
                acc = F32(acc + F32(F32(total) * F32(step * scale[o, g])))
            out[r, o] = acc if "bias" not in constants else F32(acc + constants["bias"][o])
    return out


@given(st.integers(0, 10**6), st.sampled_from([2, 3, 4, 8]), st.sampled_from([(70, 32), (64, 64), (33, 33), (130, 64)]))
@settings(max_examples=25, deadline=None)
def test_dynamic_arithmetic_is_that_of_the_page(seed, bits, sizes):
    constants, x = case(seed, bits, *sizes, zero=bool(seed % 2))
    arguments = [constants.get(k) for k in ("w", "scale", "zero", "bias")]
    got = dynamic_linear(x, *arguments, sizes[1])
    assert np.array_equal(got, slow(x, constants, sizes[1]))
    tensors = [None if a is None else torch.from_numpy(a).float() for a in arguments]
    assert np.array_equal(integer.dynamic_linear(torch.from_numpy(x), *tensors, sizes[1]).numpy(), got)


def test_odd_activations():
    x = np.array([[np.nan, 1], [np.inf, 1], [0, 0], [1e-38, -1e-38], [3e38, -3e38], [1, -0.5]], F32)
    codes, scale = quantize_activations(x, 32)
    assert np.isnan(scale[:2, 0]).all()
    assert scale[2:4, 0].tolist() == [0, 0]
    assert codes[4, 0].tolist() == [127, -127]
    assert codes[5, 0].tolist() == [127, -64]
    again, same = integer.quantize_activations(torch.from_numpy(x), 32)
    assert np.array_equal(again.numpy(), codes)
    assert np.array_equal(same.numpy(), scale, equal_nan=True)


@pytest.mark.parametrize("compute", ["f32", "bf16"])
@pytest.mark.parametrize("form", ["int", *MINIFLOATS])
def test_f32_in_emulation_and_reference_and_file(form, compute):
    constants, x = case(1, zero=form == "int")
    if form != "int":
        codes = np.random.default_rng(0).integers(0, MINIFLOATS[form].largest_code + 1, (5, 70))
        constants["w"] = codes.astype(np.uint8)
    made = program(constants, {"group": 32, "format": form, "compute": compute}, 70)
    verify(made)
    back = from_bytes(to_bytes(made))
    want = interpreter.run(back, {"x": x})["y"]
    assert np.allclose(Emulation(made).run({"x": x})["y"], want, rtol=1e-5, atol=1e-4 * np.abs(want).max())
    if form == "int":
        spread = np.repeat(constants["scale"], 32, axis=1)[:, :70]
        plain = (constants["w"] - np.repeat(constants["zero"].astype(F32), 32, axis=1)[:, :70]) * spread
        assert np.allclose(want, x @ plain.T + constants["bias"], rtol=1e-4, atol=1e-4 if compute == "f32" else 0.1)


def fused(x, w, acc):
    """fma of f32 numbers whose product is exact in f64: the sum is rounded to odd there, then to f32."""
    product = float(x) * float(w)
    total = product + float(acc)
    if math.isfinite(total):
        part = total - product
        error = (product - (total - part)) + (float(acc) - part)
        if error and not np.float64(total).view(np.int64) & 1:
            total = math.nextafter(total, math.copysign(math.inf, error))
    with np.errstate(over="ignore"):
        return F32(total)


def slow_bf16(x, numbers, constants, group):
    """Section 12 with compute = "bf16": odd k before even in a pair, one rounding a step."""
    out = np.zeros((len(x), len(numbers)), F32)
    scale = constants["scale"]
    for r, row in enumerate(torch.from_numpy(x).bfloat16().float().numpy()):
        row = [F32(0) if abs(v) < 2.0**-100 else v for v in row]
        for o in range(len(numbers)):
            acc = F32(0)
            for g in range(scale.shape[1]):
                p, end = F32(0), min((g + 1) * group, len(row))
                for k in range(g * group, end, 2):
                    if k + 1 < end:
                        p = fused(row[k + 1], numbers[o, k + 1], p)
                    p = fused(row[k], numbers[o, k], p)
                acc = F32(np.longdouble(p) * np.longdouble(scale[o, g]) + np.longdouble(acc))
            out[r, o] = acc if "bias" not in constants else F32(acc + constants["bias"][o])
    return out


def numbers_of(constants, form, group):
    if form != "int":
        return decode(constants["w"], MINIFLOATS[form])
    zero = constants.get("zero", np.zeros(constants["scale"].shape, np.int8)).astype(F32)
    return constants["w"] - np.repeat(zero, group, axis=1)[:, : constants["w"].shape[1]]


@given(
    st.integers(0, 10**6),
    st.sampled_from([2, 3, 4, 8, *MINIFLOATS]),
    st.sampled_from([(70, 32), (64, 64), (33, 33), (130, 64), (1, 32), (45, 200)]),
)
@settings(max_examples=25, deadline=None)
def test_bf16_is_that_of_the_page_on_every_instruction_set(seed, width, sizes):
    depth, group = sizes[0], min(sizes)
    form = width if isinstance(width, str) else "int"
    constants, x = case(seed, 8 if form != "int" else width, depth, group, zero=form == "int" and bool(seed % 2))
    rng = np.random.default_rng(seed)
    if form != "int":
        kind = MINIFLOATS[form]
        constants["w"] = rng.choice(finite_codes(kind), (5, depth)).astype(np.uint8)
    x *= F32(10.0) ** rng.integers(-38, 30, x.shape[1])  # so that roundings, tiny numbers and lost bits occur
    want = slow_bf16(x, numbers_of(constants, form, group), constants, group)
    made = program(constants, {"group": group, "format": form, "compute": "bf16"}, depth)
    for isa in (name for name, here in instruction_sets().items() if here):
        assert np.array_equal(load(made, threads=1, isa=isa).run({"x": x})["y"], want), isa
    reference = interpreter.run(made, {"x": x})["y"]
    spread = np.abs(bf16_activations(x)) @ np.abs(plain(constants, form, group)).T + 1
    assert (np.abs(reference - want) <= 1e-5 * spread).all()
    assert (np.abs(Emulation(made).run({"x": x})["y"] - want) <= 1e-5 * spread).all()


def plain(constants, form, group):
    scale = np.repeat(constants["scale"], group, axis=1)[:, : constants["w"].shape[1]]
    return numbers_of(constants, form, group) * scale


@pytest.mark.parametrize(
    ("value", "seen"),
    [(np.nan, np.nan), (np.inf, np.inf), (-np.inf, -np.inf), (3.4e38, np.inf), (2.0**-101, 0), (1 + 2.0**-8, 1)],
)
def test_odd_numbers_in_bf16(value, seen):
    """A NaN or infinity is seen, overflow of the rounding is infinite, tiny numbers are zero, halves go to even."""
    constants = {"w": np.ones((1, 4), np.int8), "scale": np.ones((1, 1), F32)}
    made = program(constants, {"group": 4, "compute": "bf16"}, 4)
    x = np.array([[0, value, 0, 0]], F32)
    answers = [load(made, threads=1, isa=isa).run({"x": x})["y"] for isa, here in instruction_sets().items() if here]
    answers += [interpreter.run(made, {"x": x})["y"], Emulation(made).run({"x": x})["y"]]
    assert all(np.array_equal(y, [[seen]], equal_nan=True) for y in answers)


def test_bf16_errs_by_the_rounding_of_activations_alone():
    """Against float activations: 2^-9 of the sum of magnitudes at most (8 significant bits), some tenths of a percent
    of the result's norm, well below what 8-bit codes by groups cost at a hundredth."""
    rng = np.random.default_rng(0)
    w, scale, zero = quantize_groups(rng.normal(size=(64, 512)).astype(F32), 4, 32, symmetric=False)
    x = rng.normal(size=(16, 512)).astype(F32)
    constants = {"w": w, "scale": scale, "zero": zero}
    made = {c: program(constants, {"group": 32, "compute": c}, 512) for c in ("f32", "bf16", "s8")}
    y = {c: load(p, threads=1).run({"x": x})["y"].astype(np.float64) for c, p in made.items()}
    bound = 2.0**-9 * np.abs(x) @ np.abs(plain(constants, "int", 32)).T
    assert (np.abs(y["bf16"] - y["f32"]) <= bound * 1.001).all()
    error = {c: np.linalg.norm(y[c] - y["f32"]) / np.linalg.norm(y["f32"]) for c in ("bf16", "s8")}
    assert 1e-4 < error["bf16"] < 3e-3 < error["s8"]


def test_gradients_reach_the_input():
    constants, x = case(3)
    net = Emulation(program(constants, {"group": 32, "compute": "s8"}, 70))
    feed = torch.from_numpy(x).requires_grad_()
    net({"x": feed})["y"].sum().backward()
    spread = np.repeat(constants["scale"], 32, axis=1)[:, :70]
    weights = (constants["w"] - np.repeat(constants["zero"].astype(F32), 32, axis=1)[:, :70]) * spread
    assert feed.grad is not None
    assert np.allclose(feed.grad.numpy(), np.tile(weights.sum(axis=0), (3, 1)), rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize(
    ("change", "attrs", "what"),
    [
        ({}, {"group": 31}, "group is not possible"),
        ({"scale": np.ones((5, 2), F32)}, {}, "wrong shape of scale"),
        ({"scale": np.full((5, 3), np.nan, F32)}, {}, "NaN or infinity"),
        ({"zero": np.zeros((5, 1), np.int8)}, {}, "wrong shape of zero"),
        ({"bias": np.zeros(4, F32)}, {}, "wrong shape of bias"),
        ({"w": np.zeros((5, 70), np.uint8)}, {}, "wrong dtype of w"),
        ({"w": np.full((5, 70), 0x7F, np.uint8)}, {"format": "e4m3"}, "no finite numbers"),
        ({"w": np.zeros((5, 70), np.uint8)}, {"format": "e2m1"}, "no zero point"),
        ({}, {"compute": "s4"}, "words allowed"),
    ],
)
def test_refusals(change, attrs, what):
    constants, _ = case(0)
    with pytest.raises(FileError, match=what):
        verify(program(constants | change, {"group": 32, **attrs}, 70))


@given(st.integers(0, 10**6), st.integers(2, 8), st.booleans())
@settings(max_examples=40, deadline=None)
def test_rounding_to_groups_is_within_half_a_step(seed, bits, symmetric):
    w = np.random.default_rng(seed).normal(size=(4, 75)).astype(F32)
    codes, scale, zero = quantize_groups(w, bits, 32, symmetric=symmetric)
    spread = np.repeat(scale, 32, axis=1)[:, :75]
    shift = 0 if zero is None else np.repeat(zero.astype(F32), 32, axis=1)[:, :75]
    assert np.abs((codes - shift) * spread - w).max() <= (0.5 if symmetric else 1.0) * spread.max() * 1.001
    assert codes.min() >= -(2 ** (bits - 1))
    assert codes.max() < 2 ** (bits - 1)
