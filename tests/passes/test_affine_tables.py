"""Normalizations on codes: a depthwise convolution where it gives exactly the table's codes, the table elsewhere."""

from __future__ import annotations

import numpy as np
import pytest
from graphs import build, compiled, engine_of
from hypothesis import given, settings
from hypothesis import strategies as st

from netsuke.formats.integer import requantize
from netsuke.passes import affine_tables
from netsuke.passes.affine_tables import Line, fit
from netsuke.passes.nodes import Grid
from netsuke.program.interpreter import run

C = 33
RNG = np.random.default_rng(5)


def model(body: str, **constants: np.ndarray) -> object:
    """x [N,33,H,W] on codes, the body from xd to t, and t on codes, pooled so that the layout is NHWC."""
    text = (
        "p = MaxPool<kernel_shape=[2,2]>(x) xq = QuantizeLinear(p, sx, zx) xd = DequantizeLinear(xq, sx, zx) "
        f"{body} yq = QuantizeLinear(t, sy, zy) yd = DequantizeLinear(yq, sy, zy) y = MaxPool<kernel_shape=[2,2]>(yd)"
    )
    grids = {"sx": np.float32(0.021), "zx": np.uint8(131), "sy": np.float32(0.017), "zy": np.uint8(9)}
    return build("float[N,33,H,W] x", text, "float[N,33,A,B] y", grids | constants)


GAIN = RNG.standard_normal((C, 1, 1)).astype(np.float32)
GAIN[3] = 0
SHIFT = RNG.standard_normal((C, 1, 1)).astype(np.float32)
BODIES = {
    "normalization": "m = Mul(xd, g) a = Add(m, b) t = Relu(a)",
    "backwards": "m = Sub(b, xd) a = Mul(m, g) t = Clip(a, lo, hi)",
    "bare": "m = Add(xd, b) t = Mul(m, g)",
}


@pytest.mark.parametrize("name", BODIES)
def test_a_line_becomes_a_convolution_that_gives_the_codes_of_the_table(
    name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    constants = {"g": GAIN, "b": SHIFT, "lo": np.float32(-0.1), "hi": np.float32(1.7)}
    network = model(BODIES[name], **constants)
    program = compiled(network)
    ops = [node.op for node in program.nodes]
    assert ops.count("qconv") == 1
    assert "lut" not in ops
    monkeypatch.setattr(affine_tables, "MIN_CHANNELS", 10**9)
    tables = compiled(network)
    assert [node.op for node in tables.nodes].count("lut") == 1
    x = (3 * RNG.standard_normal((2, C, 12, 12))).astype(np.float32)
    wanted = run(tables, {"x": x})["y"]
    np.testing.assert_array_equal(run(program, {"x": x})["y"], wanted)
    engine = engine_of(program)
    if engine is not None:
        np.testing.assert_array_equal(engine.run({"x": x})["y"], wanted)


def test_a_curve_stays_a_table() -> None:
    network = model("m = Mul(xd, g) t = Sigmoid(m)", g=GAIN)
    assert "lut" in [node.op for node in compiled(network).nodes]


def test_dyadic_graphs_keep_their_tables() -> None:
    network = model(BODIES["normalization"], g=GAIN, b=SHIFT)
    network.metadata_props.add(key="netsuke.requant", value="dyadic")  # type: ignore[attr-defined]
    ops = [node.op for node in compiled(network).nodes]
    assert "lut" in ops
    assert not any(op.startswith("qconv") for op in ops)


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 2**32 - 1), st.floats(1e-3, 1e3), st.integers(0, 255), st.integers(0, 255))
def test_what_is_found_gives_the_table(seed: int, scale: float, x_zero: int, zero: int) -> None:
    rng = np.random.default_rng(seed)
    grid = Grid(None, scale, zero, 0, 255)  # type: ignore[arg-type]
    line = Line(x_zero, rng.standard_normal(64) * scale, rng.standard_normal(64) * scale * 50, grid=grid)
    x = np.arange(256) - x_zero
    real = ((line.gain[:, None] * x).astype(np.float32) + line.shift[:, None].astype(np.float32)).astype(np.float32)
    table = np.clip(np.rint(real / np.float32(scale)) + zero, 0, 255).astype(np.uint8)
    found = fit(line, table, 0, 255)
    if found is not None:
        w, mult, bias = found
        acc = x[:, None] * w.astype(np.int64)
        np.testing.assert_array_equal(requantize(acc, mult, bias, zero=zero).T, table)
    wrong = table.copy()
    wrong[7, 100] ^= 64
    assert fit(line, wrong, 0, 255) is None
