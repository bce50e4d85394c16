"""One-bit operators: packing, the reference against plain products of signs, the emulation and the engine against the
reference, and the verifier's rules."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from netsuke.core.errors import EnvironmentProblem, FileError
from netsuke.engine import load
from netsuke.formats import pack_bits, spare_bits_clear, unpack_bits, word_count
from netsuke.program.emulate import Emulation
from netsuke.program.interpreter import run
from netsuke.program.model import Node, Port, Program
from netsuke.program.verify import verify


@given(st.integers(1, 200), st.integers(0, 3), st.integers(0, 2**32 - 1))
def test_pack_and_unpack_are_inverse(channels, rows, seed):
    bits = np.random.default_rng(seed).random((rows, channels)) < 0.5
    words = pack_bits(bits)
    assert words.shape == (rows, word_count(channels))
    assert words.dtype == np.int64
    assert spare_bits_clear(words, channels)
    assert (unpack_bits(words, channels) == bits).all()
    for row, packed in zip(bits, words, strict=True):
        value = sum(1 << i for i, bit in enumerate(row) if bit)
        assert value == sum((int(w) % 2**64) << (64 * i) for i, w in enumerate(packed))


def network(
    rng, channels, outputs, kernel, *, out="f32", groups=1, pad_value=0, window=None, signs=False, levels="sign"
):
    """x f32 NHWC -> sign_pack -> bconv with everything fused; `signs` adds the second output."""
    w = rng.random((outputs, *kernel, channels // groups)) < 0.5
    threshold = rng.normal(0, 5, outputs).astype(np.float32)
    if out != "f32":
        threshold = rng.integers(-4, 5, outputs).astype(np.int32)
    constants = {
        "zero": np.zeros(channels, np.float32),
        "w": pack_bits(w),
        "t": threshold,
        "flip": rng.random(outputs) < 0.5,
        "mult": rng.normal(0, 1, outputs).astype(np.float32),
        "bias": rng.normal(0, 1, outputs).astype(np.float32),
        "slope": rng.normal(0, 1, outputs).astype(np.float32),
        "shift": rng.normal(0, 1, outputs).astype(np.float32),
    }
    attrs = {"strides": [1, 1], "pads": [0, 0, 0, 0], **(window or {}), "groups": groups, "channels": channels}
    attrs |= {"pad_value": pad_value, "out": out, "levels": levels} | ({"zero": 128} if out == "u8" else {})
    packed = out == "bits" or signs
    real = ["", "", "", ""] if out == "bits" else ["mult", "bias", "slope", "shift"]
    inputs = ["p", "w", *real, "", "t" if packed else "", "flip" if packed else ""]
    used = {"zero", *inputs}
    nodes = [
        Node("sign_pack", "pack", ["x", "zero", ""], ["p"], {}),
        Node("bconv", "conv", inputs, ["y", "s"] if signs else ["y"], attrs),
    ]
    words = {"f32": "f32", "u8": "u8", "bits": "i64"}
    outs = [Port("y", words[out], ("N", "H2", "W2", outputs if out != "bits" else word_count(outputs)))]
    if signs:
        outs.append(Port("s", "i64", ("N", "H2", "W2", word_count(outputs))))
    kept = {k: v for k, v in constants.items() if k in used}
    return Program("b", [Port("x", "f32", ("N", "H", "W", channels))], outs, nodes, kept), w


def engine(program):
    try:
        return load(program, threads=2)
    except EnvironmentProblem as problem:
        pytest.skip(str(problem))


@settings(max_examples=40, deadline=None)
@given(st.data())
def test_reference_emulation_and_engine_agree(data):
    """Channel counts around the word, groups, every pad value, strides, dilations, 1x1 images, batch 0."""
    draw = data.draw
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    groups = draw(st.sampled_from((1, 1, 1, 2, 3)))
    channels = groups * draw(st.sampled_from((1, 3, 7, 31, 63, 64, 65, 100, 128)))
    outputs = groups * draw(st.sampled_from((1, 5, 31, 64, 65)))
    kernel = draw(st.sampled_from(((1, 1), (3, 3), (5, 5), (2, 3))))
    pads = draw(st.lists(st.integers(0, 3), min_size=4, max_size=4))
    window = {"pads": pads, "strides": [draw(st.integers(1, 2)), 1], "dilations": [1, draw(st.integers(1, 2))]}
    out = draw(st.sampled_from(("bits", "u8", "f32")))
    signs = out != "bits" and draw(st.booleans())
    levels = draw(st.sampled_from(("sign", "sign", "bool")))
    pad_value = draw(st.integers(-1, 1)) if levels == "sign" else 0
    options = {"out": out, "groups": groups, "pad_value": pad_value, "window": window, "signs": signs, "levels": levels}
    program, _ = network(rng, channels, outputs, kernel, **options)
    verify(program)
    size = draw(st.integers(9, 10))
    shape = (draw(st.integers(0, 2)), *((1, 1) if kernel == (1, 1) else (size, size)), channels)
    x = np.sign(rng.normal(0, 1, shape)).astype(np.float32) * rng.integers(0, 2, shape).astype(np.float32)
    want = run(program, {"x": x})
    got = Emulation(program).run({"x": x})
    here = engine(program).run({"x": x})
    for name, value in want.items():
        assert (value == got[name]).all(), name
        assert np.array_equal(value, here[name]), name
        assert value.dtype == here[name].dtype


@pytest.mark.parametrize(("pad_value", "low"), [(-1, -1), (0, -1), (1, -1), (0, 0)])
def test_sums_equal_torch_convolution_of_signs(pad_value, low):
    """An oracle that packs nothing: torch's convolution of padded +1 and -1, or 1 and 0."""
    rng = np.random.default_rng(3)
    levels = "sign" if low else "bool"
    program, w = network(rng, 70, 9, (3, 3), window={"pads": [1, 1, 1, 1]}, pad_value=pad_value, levels=levels)
    for name in ("bias", "slope", "shift"):
        program.constants.pop(name)
    program.nodes[1].inputs[3:6] = ["", "", ""]
    program.constants["mult"] = np.ones(9, np.float32)
    x = rng.normal(0, 1, (2, 6, 5, 70)).astype(np.float32)
    y = run(program, {"x": x})["y"]
    signs = torch.from_numpy(np.where(x >= 0, 1.0, float(low))).permute(0, 3, 1, 2)
    padded = torch.nn.functional.pad(signs, (1, 1, 1, 1), value=float(pad_value))
    weights = torch.from_numpy(np.where(w, 1.0, -1.0)).permute(0, 3, 1, 2)
    want = torch.nn.functional.conv2d(padded, weights).permute(0, 2, 3, 1).numpy()
    assert (y == want).all()


def test_a_nan_is_minus_one_and_plus_one_when_flipped():
    x = np.array([[np.nan, np.nan, 0.0, -0.0]], np.float32)
    constants = {"t": np.zeros(4, np.float32), "f": np.array([False, True, False, False])}
    node = Node("sign_pack", "p", ["x", "t", "f"], ["y"], {})
    program = Program("n", [Port("x", "f32", (1, 4))], [Port("y", "i64", (1, 1))], [node], constants)
    assert run(program, {"x": x})["y"].tolist() == [[0b1110]]
    assert engine(program).run({"x": x})["y"].tolist() == [[0b1110]]


def broken(change):
    program, _ = network(np.random.default_rng(0), 70, 9, (3, 3), out="u8", signs=True)
    change(program)
    return program


def _spare(program):
    program.constants["w"] = program.constants["w"] | np.int64(-(2**63))


def _channels(program):
    program.nodes[1].attrs["channels"] = 71


def _source(program):
    program.inputs = [Port("p", "i64", ("N", "H", "W", 2))]
    program.nodes.pop(0)
    program.constants.pop("zero")


def _no_threshold(program):
    program.nodes[1].inputs[7:] = ["", ""]


def _wrong_threshold(program):
    program.constants["t"] = program.constants["t"].astype(np.float32)


def _bool_padded(program):
    program.nodes[1].attrs.update(levels="bool", pad_value=1)


def _no_mult(program):
    program.nodes[1].inputs[2] = ""


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (_spare, "bits of w behind the last channel"),
        (_channels, "x must be packed signs"),
        (_source, "x must be packed signs"),
        (_no_threshold, "a threshold belongs to packed outputs"),
        (_wrong_threshold, "wrong dtype of threshold"),
        (_no_mult, "mult is absent"),
        (_bool_padded, "levels of 0 and 1 are padded with 0"),
    ],
)
def test_the_verifier_names_what_is_wrong(change, message):
    with pytest.raises(FileError, match=message):
        verify(broken(change))
