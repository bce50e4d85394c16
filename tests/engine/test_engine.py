"""The Engine class: what it accepts, what it says when it does not, and that results depend on nothing else."""

from __future__ import annotations

import subprocess
import sys
import threading
from pathlib import Path

import numpy as np
import pytest
from tests.engine.helpers import Array

from netsuke.core.errors import EnvironmentProblem, FileError, NetsukeError, UnsupportedError, UsageError
from netsuke.engine import instruction_sets, load
from netsuke.engine import native as native_module
from netsuke.program import interpreter, write
from netsuke.program.model import Node, Port, Program, Value


def network() -> Program:
    """quantize, a linear layer with fused clamp, dequantize; a second output by reshape, whose size is computed."""
    random = np.random.default_rng(0)
    weights = random.integers(-127, 128, (5, 8)).astype(np.int8)
    nodes = [
        Node("quantize", "quant", ["x"], ["q"], {"scale": 0.05, "zero": 120}),
        Node(
            "qlinear",
            "fc",
            ["q", "w", "mult", "bias", "", ""],
            ["y"],
            {"x_zero": 120, "zero": 7, "lo": 7, "out": "u8", "acc_bound": 8 * 255 * 127},
        ),
        Node("dequantize", "dequant", ["y"], ["logits"], {"scale": 0.1, "zero": 7}),
        Node("reshape", "flat", ["logits", "shape"], ["all"], {}),
    ]
    constants: dict[str, Array] = {
        "w": weights,
        "mult": random.uniform(0.001, 0.01, 5).astype(np.float32),
        "bias": random.normal(0, 20, 5).astype(np.float32),
        "shape": np.array([-1], np.int64),
    }
    values = {"q": Value("u8", 0.05, 120), "y": Value("u8", 0.1, 7, "relu_out"), "logits": Value("f32")}
    return Program(
        "net",
        [Port("x", "f32", ("N", 8))],
        [Port("logits", "f32", ("N", 5)), Port("all", "f32", ("M",))],
        nodes,
        constants,
        values,
        plan="[layers]\n",
        meta={"seed": "0"},
    )


X = np.random.default_rng(1).standard_normal((4, 8)).astype(np.float32) * 3


@pytest.mark.parametrize("isa", [name for name, here in instruction_sets().items() if here])
@pytest.mark.parametrize("threads", [1, 2, 3])
def test_equal_to_the_interpreter(isa: str, threads: int) -> None:
    engine = load(network(), threads=threads, isa=isa)
    assert (engine.isa, engine.threads) == (isa, threads)
    for batch in (1, 4, 0, 3):
        expected = interpreter.run(network(), {"x": X[:batch]}, ["q", "y"])
        found = engine.run({"x": X[:batch]}, ["q", "y"])
        assert list(found) == ["logits", "all", "q", "y"]
        for name, array in expected.items():
            assert found[name].dtype == array.dtype
            assert found[name].shape == array.shape
            assert np.array_equal(found[name], array), name


def test_what_it_says_of_itself(tmp_path: Path) -> None:
    path = tmp_path / "net.nsk"
    size = write(network(), path)
    engine = load(path)
    assert engine.name == "net"
    assert engine.meta == {"seed": "0"}
    assert engine.plan == "[layers]\n"
    assert engine.file_bytes == size
    assert engine.inputs == [Port("x", "f32", ("N", 8))]
    assert engine.outputs[0] == Port("logits", "f32", ("N", 5))
    assert "x float32 [N, 8]" in repr(engine)
    rows = engine.kernels()
    assert [row["node"] for row in rows] == ["quant", "fc", "dequant", "flat"]
    assert all(row["isa"] in instruction_sets() and row["kernel"] for row in rows)
    assert rows[1]["isa"] == engine.isa
    assert engine.arena_bytes() > 0
    assert engine.arena_bytes((1000, 8)) > engine.arena_bytes({"x": (1, 8)})
    assert engine.output_shapes((3, 8)) == {"logits": (3, 5), "all": (15,)}
    assert {row["name"]: row["source"] for row in engine.values()}["y"] == "relu_out"


def test_file_may_change_after_loading(tmp_path: Path) -> None:
    path = tmp_path / "net.nsk"
    write(network(), path)
    engine = load(path)
    before = engine(X)
    path.unlink()
    assert all(np.array_equal(a, b) for a, b in zip(before, engine(X), strict=True))


def test_ways_to_call() -> None:
    engine = load(network())
    by_name, plain = engine.run({"x": X}), engine.run(X)
    called = engine(X)
    assert isinstance(called, tuple)
    assert np.array_equal(by_name["logits"], plain["logits"])
    assert np.array_equal(by_name["logits"], called[0])
    assert np.array_equal(engine.run(X, "relu_out")["relu_out"], engine.run(X, ["y"])["y"])
    columns = np.asfortranarray(X)
    assert np.array_equal(engine.run(columns)["logits"], by_name["logits"])
    assert np.array_equal(engine.run(X[::-1])["logits"], by_name["logits"][::-1])


def test_outputs_outlive_the_engine() -> None:
    engine = load(network())
    first, second = engine.run(X)["logits"], engine.run(X * 2)["logits"]
    kept = first.copy()
    del engine
    assert first.flags.writeable
    assert first.flags.c_contiguous
    assert np.array_equal(first, kept)
    assert not np.shares_memory(first, second)


def test_profile() -> None:
    rows = load(network()).profile(X, runs=3)
    assert [row["node"] for row in rows] == ["quant", "fc", "dequant"]  # the view does not run
    assert rows[1]["macs"] == 4 * 8 * 5
    assert all(row["ms"] >= row["ms_min"] >= 0 and row["bytes"] > 0 for row in rows)
    assert rows[1]["shape"] == (4, 5)


@pytest.mark.parametrize(
    ("feeds", "words"),
    [
        ({}, ["missing input", "x float32 [N, 8]"]),
        ({"x": X.astype(np.float64)}, ["float64", "x float32 [N, 8]", "astype('float32')"]),
        ({"x": X[:, :7]}, ["[4, 7]", "x float32 [N, 8]"]),
        ({"x": X[0]}, ["[8]"]),
        ({"X": X}, ["unknown input", "'X'", "missing input"]),
        ([1.0, 2.0], ["float64"]),
    ],
)
def test_wrong_inputs(feeds: object, words: list[str]) -> None:
    with pytest.raises(UsageError) as caught:
        load(network()).run(feeds)
    assert all(word in str(caught.value) for word in words), str(caught.value)


def test_wrong_taps_threads_isa(monkeypatch: pytest.MonkeyPatch) -> None:
    engine = load(network())
    with pytest.raises(UsageError, match="did you mean logits"):
        engine.run(X, ["logitz"])
    with pytest.raises(UsageError, match="1 to 1024"):
        load(network(), threads=0)
    with pytest.raises(UsageError, match="portable"):
        load(network(), isa="mmx")
    monkeypatch.setenv("NETSUKE_ISA", "mmx")
    with pytest.raises(UsageError, match="NETSUKE_ISA"):
        load(network())
    assert load(network(), isa="portable").isa == "portable"
    monkeypatch.setenv("NETSUKE_ISA", "portable")
    assert load(network()).isa == "portable"


def test_wrong_files(tmp_path: Path) -> None:
    with pytest.raises(FileError, match="no such file"):
        load(tmp_path / "none.nsk")
    path = tmp_path / "net.nsk"
    write(network(), path)
    data = path.read_bytes()
    path.write_bytes(data[: len(data) // 2])
    with pytest.raises(FileError):
        load(path)
    path.write_bytes(data.replace(b'\\"op\\":\\"quantize\\"', b'\\"op\\":\\"quantise\\"'))
    with pytest.raises(UnsupportedError, match=r"quant.*quantise.*unknown operator"):
        load(path)
    path.write_bytes(b"")
    with pytest.raises(FileError, match="empty"):
        load(path)


def test_memory_limit() -> None:
    engine = load(network(), max_memory=1 << 16)
    assert engine.run(X)["logits"].shape == (4, 5)
    with pytest.raises(EnvironmentProblem, match="65536 bytes"):
        engine.run(np.zeros((100_000, 8), np.float32))


def test_concurrent_runs() -> None:
    engine = load(network(), threads=2)
    batches = [X[: 1 + i % 4] * (i + 1) for i in range(8)]
    expected = [engine.run(batch)["logits"] for batch in batches]
    wrong: list[int] = []

    def work(offset: int) -> None:
        for i in range(200):
            at = (i + offset) % len(batches)
            if not np.array_equal(engine.run(batches[at])["logits"], expected[at]):
                wrong.append(at)

    threads = [threading.Thread(target=work, args=(i,)) for i in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not wrong


def test_dlpack() -> None:
    class Exporter:
        def __dlpack__(self, **keywords: object) -> object:
            return X.__dlpack__(**keywords)  # type: ignore[arg-type]

        def __dlpack_device__(self) -> tuple[int, int]:
            return (1, 0)

    handle = load(network())._handle
    assert np.array_equal(handle.run([Exporter()], [])[0], handle.run([X], [])[0])
    assert np.shares_memory(np.from_dlpack(first := handle.run([X], [])[0]), first)


def test_missing_runtime_names_the_command(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "netsuke._runtime", None)
    monkeypatch.delattr("netsuke._runtime", raising=False)
    with pytest.raises(EnvironmentProblem, match="pip install"):
        native_module.runtime()


def test_subnormals_survive_a_caller_that_flushes_them() -> None:
    x = np.array([[1e-40]], np.float32)
    nodes = [Node("transpose", "t", ["x"], ["t"], {"perm": [1, 0]}), Node("unary", "u", ["t"], ["y"], {"fn": "abs"})]
    program = Program("tiny", [Port("x", "f32", (1, 1))], [Port("y", "f32", (1, 1))], nodes)
    assert load(program).run(x)["y"][0, 0] == x[0, 0]


def test_loading_the_engine_does_not_load_torch() -> None:
    code = "import sys, netsuke.engine; netsuke.engine.instruction_sets(); print('torch' in sys.modules)"
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert found.stdout.strip() == "False"


def test_free_dimension_has_one_size() -> None:
    nodes = [Node("concat", "c", ["a", "b"], ["y"], {"axis": 1})]
    ports = [Port("a", "f32", ("N", 2)), Port("b", "f32", ("N", 3))]
    engine = load(Program("two", ports, [Port("y", "f32", ("N", 5))], nodes))
    feeds = {"a": np.ones((2, 2), np.float32), "b": np.zeros((2, 3), np.float32)}
    assert engine.run(feeds)["y"].shape == (2, 5)
    with pytest.raises(NetsukeError, match="dimension 0 N must be 2"):
        engine.run({**feeds, "b": np.zeros((1, 3), np.float32)})
    with pytest.raises(UsageError, match="one array given"):
        engine.run(feeds["a"])


def test_a_field_of_a_record_array_may_start_anywhere() -> None:
    record = np.zeros(1, np.dtype([("flag", np.uint8), ("x", np.float32, (8,))]))
    record["x"] = X[:1]
    assert not record["x"].flags.aligned
    engine = load(network())
    assert np.array_equal(engine.run(record["x"])["logits"], engine.run(X[:1])["logits"])
