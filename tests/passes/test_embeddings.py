"""Quantized tables of embeddings are stored as bytes, and what is read from them is the same float, bit for bit."""

from __future__ import annotations

import numpy as np
import onnx
import pytest
from graphs import build, compiled, engine_of

from netsuke.passes import packed_report
from netsuke.program.interpreter import run

RNG = np.random.default_rng(8)
ROWS = 40
ROW_SCALES = RNG.uniform(0.001, 0.1, ROWS).astype(np.float32)
TABLES = {
    "s8, a scale a row": (RNG.integers(-127, 128, (ROWS, 6)).astype(np.int8), ROW_SCALES, np.zeros(ROWS, np.int8)),
    "s8, one scale": (RNG.integers(-128, 128, (ROWS, 6)).astype(np.int8), np.float32(0.03), np.int8(-7)),
    "u8, one scale": (RNG.integers(0, 256, (ROWS, 6)).astype(np.uint8), np.float32(0.03), np.uint8(200)),
    "u8, matrices": (RNG.integers(0, 256, (ROWS, 2, 3)).astype(np.uint8), ROW_SCALES, np.full(ROWS, 9, np.uint8)),
}  # fmt: skip


def network(name: str) -> onnx.ModelProto:
    codes, scale, zero = TABLES[name]
    axis = "<axis=0>" if np.ndim(scale) else ""
    body = f"d = DequantizeLinear{axis}(t, s, z) g = Gather<axis=0>(d, i) y = Relu(g)"
    inner = ",".join(map(str, codes.shape[1:]))
    return build("int64[N,T] i", body, f"float[N,T,{inner}] y", {"t": codes, "s": scale, "z": zero})


@pytest.mark.parametrize("name", TABLES)
def test_rows_are_decoded_behind_the_gather(name: str) -> None:
    codes, scale, zero = TABLES[name]
    program = compiled(network(name))
    floats = sum(a.size for a in program.constants.values() if a.dtype == np.float32)
    assert floats == (ROWS if np.ndim(scale) else 0)
    assert next(r["kind"] for r in packed_report(program) if r["op"] == "gather") == "packed"
    index = RNG.integers(-ROWS, ROWS, (3, 5))
    steps = np.asarray(scale).reshape(-1, *[1] * (codes.ndim - 1))
    points = np.asarray(zero).astype(np.int32).reshape(-1, *[1] * (codes.ndim - 1))
    wanted = np.maximum(((codes.astype(np.int32) - points).astype(np.float32) * steps)[index], 0)
    assert np.array_equal(run(program, {"i": index})["y"], wanted)
    engine = engine_of(program)
    if engine is not None:
        assert np.array_equal(engine.run({"i": index})["y"], wanted)


def test_a_table_scaled_along_its_columns_is_folded_and_said_to_be() -> None:
    codes = RNG.integers(-127, 128, (ROWS, 6)).astype(np.int8)
    body = "d = DequantizeLinear<axis=1>(t, s) y = Gather<axis=0>(d, i)"
    found = build("int64[N] i", body, "float[N,6] y", {"t": codes, "s": np.full(6, 0.1, np.float32)})
    rows = packed_report(compiled(found))
    assert [r["kind"] for r in rows if r["op"] == "gather"] == ["simulated"]
