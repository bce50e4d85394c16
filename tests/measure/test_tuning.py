"""Ways of computing a layer: timed, stored by CPU where a person can read it, never changing a result."""

import json

import numpy as np
import onnx
import pytest

import netsuke
from netsuke import engine
from netsuke.capture import capture
from netsuke.measure import tuning
from netsuke.passes import compile_program
from netsuke.program.interpreter import run

DOMAIN = "qonnx.custom_op.general"


def quantized(weight_levels, bits, rng):
    """A QONNX file: activations of `bits` bits, a convolution whose weights take these levels, no edits by hand."""
    w = rng.choice(np.asarray(weight_levels, np.float32), (70, 20, 3, 3)) * rng.uniform(0.1, 0.5, (70, 1, 1, 1))
    text = f"""<ir_version: 8, opset_import: ["" : 16, "{DOMAIN}" : 1]> g (float[N,20,9,8] x) => (float[N,70,9,8] y) {{
        q = {DOMAIN}.Quant<signed=0>(x, s, z, b) y = Conv<pads=[1,1,1,1]>(q, v) }}"""
    scale = np.abs(w).max((1, 2, 3), keepdims=True)
    binary = len(weight_levels) == 2
    kind = "BipolarQuant(w, t)" if binary else "Quant<narrow=1>(w, t, z, wb)"
    text = text.replace("y = Conv", f"v = {DOMAIN}.{kind} y = Conv")
    made = onnx.parser.parse_model(text)
    values = {"w": w, "t": scale, "s": 0.25, "z": 0, "b": bits} | ({} if binary else {"wb": 2})
    for name, array in values.items():
        made.graph.initializer.append(onnx.numpy_helper.from_array(np.asarray(array, np.float32), name))
    return made


@pytest.fixture
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    yield tmp_path
    tuning.use({})


@pytest.mark.parametrize(
    ("levels", "bits", "name"),
    [((-1, 1), 2, "bits2x1"), ((-1, 1), 4, "bits4x1"), ((-1, 0, 1), 2, "bits2x2"), ((-1, 0, 1), 1, "bits1x2")],
)
def test_narrow_codes_have_bit_planes_as_a_way(levels, bits, name):
    """W1A2, W1A4, W2A2 and ternary weights with one bit, from QONNX without edits: every way gives the reference."""
    rng = np.random.default_rng(bits)
    program = compile_program(capture(quantized(levels, bits, rng)))
    layers = [n for n in program.nodes if n.op == "qconv"]
    assert len(layers) == 1
    x = {"x": rng.uniform(-1, 5, (2, 20, 9, 8)).astype(np.float32)}
    want = run(program, x)["y"]
    seen = set()
    ways = next(row["ways"] for row in engine.load(program).kernels() if row["op"] == "qconv")
    assert "bits" in ways
    for way in ways:
        for isa in (None, "portable"):
            tuning.use({"*": way})
            try:
                loaded = engine.load(program, threads=2, isa=isa)
            finally:
                tuning.use({})
            seen.add(next(row["kernel"] for row in loaded.kernels() if row["op"] == "qconv"))
            assert loaded.run(x)["y"].tobytes() == want.tobytes()
    assert any(name in kernel for kernel in seen)


@pytest.mark.usefixtures("cache")
def test_tuning_is_stored_read_and_used():
    rng = np.random.default_rng(0)
    program = compile_program(capture(quantized((-1, 1), 2, rng)))
    x = {"x": rng.uniform(-1, 5, (1, 20, 9, 8)).astype(np.float32)}
    want = engine.load(program, threads=1).run(x)["y"].tobytes()
    found = tuning.tune(program, x, threads=1, runs=3)
    assert len(found.ms) == 1
    (key,) = found.ms
    assert {"tiles", "bits"} <= set(found.ms[key])
    path = tuning.store_path(found.isa, 1)
    stored = json.loads(path.read_text())
    assert stored["layers"][key]["ms"] == found.ms[key]
    assert found.nodes[key] == stored["layers"][key]["nodes"]
    assert engine.load(program, threads=1).run(x)["y"].tobytes() == want
    assert tuning.use_stored(found.isa, 1) == found.choices()
    assert "bits" in str(found)


@pytest.mark.usefixtures("cache")
def test_load_takes_what_was_tuned_and_leaves_other_loads_alone():
    rng = np.random.default_rng(0)
    program = compile_program(capture(quantized((-1, 1), 2, rng)))
    x = {"x": rng.uniform(-1, 5, (1, 20, 9, 8)).astype(np.float32)}

    def kernel(loaded):
        return next(row["kernel"] for row in loaded.kernels() if row["op"] == "qconv")

    plain = engine.load(program, threads=1)
    assert kernel(netsuke.load(program, threads=1)) == kernel(plain)  # nothing was tuned yet
    row = next(row for row in plain.kernels() if len(row["ways"]) > 1)
    rule, other = row["ways"][0], next(way for way in row["ways"] if way != row["ways"][0])
    times = {row["key"]: {rule: 2.0, other: 1.0}}
    tuning.write(tuning.Tuning(plain.isa, 1, times, {row["key"]: rule}, {row["key"]: [row["node"]]}))
    tuned = netsuke.load(program, threads=1)
    assert kernel(tuned) != kernel(plain)
    assert tuned.run(x)["y"].tobytes() == plain.run(x)["y"].tobytes()
    assert kernel(engine.load(program, threads=1)) == kernel(plain)
    assert kernel(netsuke.load(program, threads=2)) == kernel(plain)  # tuned for one thread only


def test_a_way_must_be_clearly_faster():
    found = tuning.Tuning("avx2", 1, {"k": {"tiles": 1.0, "bits": 0.98}}, {"k": "tiles"})
    assert found.choices() == {}
    found.ms["k"]["bits"] = 0.9
    assert found.choices() == {"k": "bits"}


@pytest.mark.usefixtures("cache")
@pytest.mark.parametrize("text", ["", "{", '{"schema": "netsuke.kernel-choices/1", "layers": {"k": {}}}', "[]"])
def test_a_torn_file_is_measured_again(text):
    path = tuning.store_path("avx2", 1)
    path.parent.mkdir(parents=True)
    path.write_text(text)
    assert tuning.read("avx2", 1).ms == {}
    assert tuning.use_stored("avx2", 1) == {}
