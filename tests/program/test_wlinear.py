"""Weight-only linear layers: exact arithmetic against plain Python, emulation against reference, and refusals."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from netsuke.core.errors import FileError
from netsuke.formats import MINIFLOATS, dynamic_linear, quantize_activations, quantize_groups
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


@pytest.mark.parametrize("form", ["int", *MINIFLOATS])
def test_f32_in_emulation_and_reference_and_file(form):
    constants, x = case(1, zero=form == "int")
    if form != "int":
        codes = np.random.default_rng(0).integers(0, MINIFLOATS[form].largest_code + 1, (5, 70))
        constants["w"] = codes.astype(np.uint8)
    made = program(constants, {"group": 32, "format": form, "compute": "f32"}, 70)
    verify(made)
    back = from_bytes(to_bytes(made))
    want = interpreter.run(back, {"x": x})["y"]
    assert np.allclose(Emulation(made).run({"x": x})["y"], want, rtol=1e-5, atol=1e-4 * np.abs(want).max())
    if form == "int":
        spread = np.repeat(constants["scale"], 32, axis=1)[:, :70]
        plain = (constants["w"] - np.repeat(constants["zero"].astype(F32), 32, axis=1)[:, :70]) * spread
        assert np.allclose(want, x @ plain.T + constants["bias"], rtol=1e-4, atol=1e-4)


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
