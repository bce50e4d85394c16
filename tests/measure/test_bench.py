"""The benchmark end to end on a tiny network, with engines that fail, crash and are missing."""

from __future__ import annotations

import json
import os
from pathlib import Path

import numpy as np
import pytest

from netsuke.core.errors import EnvironmentProblem, UsageError
from netsuke.measure import bench, engines
from netsuke.measure.engines.base import Engine, Session, Subject, Unavailable
from netsuke.measure.probe import probe
from netsuke.measure.result import Result
from netsuke.verify.runners import runtime_available
from tiny_network import inputs, network, write_all

needs_runtime = pytest.mark.skipif(not runtime_available(), reason="the compiled runtime is not built")


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    return write_all(tmp_path_factory.mktemp("bench"))


@pytest.fixture(scope="module")
def measured(files: dict[str, Path]) -> Result:
    pytest.importorskip("onnxruntime")
    names = ("netsuke", "onnxruntime")
    return bench(files["tiny.onnx"], threads=(1, 2), names=names, seconds=0.05, memory=False, calib={"": inputs(8)})


@needs_runtime
def test_rows_of_a_float_network_alone(measured: Result) -> None:
    ours = measured.row("netsuke", "f32", 2)
    assert ours.status == "ok"
    assert ours.effective_threads == 2
    assert ours.cosine == pytest.approx(1.0)
    assert ours.summary is not None
    assert ours.summary.rounds >= 9
    compressed = measured.row("netsuke", "int8")
    assert compressed.status == "failed"
    assert "no compressed program" in compressed.reason


@needs_runtime
def test_the_competitors_own_int8_computes_the_same_network(measured: Result) -> None:
    theirs = measured.row("onnxruntime", "int8", 1)
    assert theirs.status == "ok", theirs.reason
    assert theirs.cosine is not None
    assert theirs.cosine > 0.99
    assert measured.row("onnxruntime", "f32", 1).cosine == pytest.approx(1.0, abs=1e-6)
    assert {r.threads for r in measured.rows} == {1, 2}
    json.dumps(measured.as_json(), allow_nan=False)


def _fake(name: str, *, fail: Exception | None = None, package: str = "numpy") -> Engine:
    def open_session(subject: Subject, _precision: str, threads: int) -> Session:
        if fail is not None:
            raise fail
        return Session(lambda: [np.ones((1, 4), np.float32) * len(subject.feeds)], threads)

    return Engine(name, name, ("f32",), (package,), f"pip install {name}", open_session)


def test_failing_and_missing_engines_are_rows(files: dict[str, Path], monkeypatch: pytest.MonkeyPatch) -> None:
    fakes = {
        "good": _fake("good"),
        "refuses": _fake("refuses", fail=Unavailable("cannot do this")),
        "broken": _fake("broken", fail=RuntimeError("first line\nsecond line")),
        "absent": _fake("absent", package="no_such_package_at_all"),
    }
    monkeypatch.setattr(engines, "engine", fakes.__getitem__)
    result = bench(files["tiny.onnx"], names=list(fakes), seconds=0.02, memory=False)
    assert {r.engine: r.status for r in result.rows} == {
        "good": "ok",
        "refuses": "failed",
        "broken": "failed",
        "absent": "missing",
    }
    assert result.row("refuses", "f32").reason == "cannot do this"
    assert result.row("broken", "f32").reason == "RuntimeError: first line"
    text = str(result)
    assert "no_such_package_at_all not installed   install: pip install absent" in text
    assert "good f32" in text


def test_when_no_engine_can_run_that_is_said(files: dict[str, Path], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(engines, "engine", {"x": _fake("x", fail=Unavailable("no"))}.__getitem__)
    with pytest.raises(EnvironmentProblem, match="no engine could run"):
        bench(files["tiny.onnx"], names=["x"], seconds=0.02, memory=False)


def test_all_wrong_settings_are_told_together(files: dict[str, Path]) -> None:
    with pytest.raises(UsageError) as caught:
        bench(files["tiny.onnx"], threads=[0, 10**6], batch=[0], seconds=-1)
    assert len(caught.value.problems) == 4


def test_unknown_engine_gets_near_matches(files: dict[str, Path]) -> None:
    with pytest.raises(UsageError, match="did you mean onnxruntime"):
        bench(files["tiny.onnx"], names=["onnxruntim"])


def test_load_first_call_and_memory_come_from_a_process_of_their_own(tmp_path: Path, files: dict[str, Path]) -> None:
    pytest.importorskip("onnxruntime")
    subject = Subject(folder=tmp_path, feeds={"x": inputs(1)}, onnx=files["tiny.onnx"])
    found = probe(subject, "onnxruntime", "f32", 1)
    assert found.keys() == {"load_ms", "first_ms", "peak_bytes"}
    assert found["load_ms"] > 0
    assert found["peak_bytes"] > 0
    refused = probe(subject, "onnxruntime", "int8", 1)
    assert "error" in refused or "unavailable" in refused


def test_a_process_that_dies_is_an_answer(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    crash = tmp_path / "crash.sh"
    crash.write_text("#!/bin/sh\nkill -SEGV $$\n")
    crash.chmod(0o755)
    monkeypatch.setattr("sys.executable", str(crash))
    found = probe(Subject(folder=tmp_path, feeds={"x": inputs(1)}), "onnxruntime", "f32", 1)
    assert "SIGSEGV" in found["error"]


def test_engines_know_how_they_are_installed() -> None:
    for name in engines.NAMES:
        found = engines.engine(name)
        assert found.name == name
        assert found.install.startswith("pip install")
        assert set(found.precisions) <= {"f32", "bf16", "int8"}


@needs_runtime
def test_ours_held_to_one_instruction_set(files: dict[str, Path]) -> None:
    result = bench(files["tiny.onnx"], names=["netsuke:portable", "netsuke"], seconds=0.02, memory=False)
    portable = result.row("netsuke:portable", "f32")
    assert portable.note == "portable"
    assert portable.cosine == pytest.approx(1.0)
    assert portable.ours
    with pytest.raises(UsageError):
        bench(files["tiny.onnx"], names=["onnxruntime:avx2"])


def test_a_program_of_bfloat16_alone_is_called_so(files: dict[str, Path]) -> None:
    import netsuke

    plan = netsuke.plan(files["tiny.onnx"], calib=str(files["calib.npz"]), effort="fast")
    for row in plan.rows:
        row.method = "keep"
        if row.weight_bits is not None:
            row.weight_bits = 16
    made = netsuke.compress(files["tiny.onnx"], plan, calib=str(files["calib.npz"]), measure=False)
    result = bench(made, files["tiny.onnx"], names=["netsuke"], seconds=0.02, memory=False)
    assert [row.label for row in result.rows] == ["netsuke f32", "netsuke bf16"]
    assert result.row("netsuke", "bf16").cosine == pytest.approx(1.0, abs=1e-3)


@pytest.mark.slow
def test_torch_eager_from_a_live_module() -> None:
    torch = pytest.importorskip("torch")
    module = torch.nn.Sequential(torch.nn.Conv2d(3, 4, 3), torch.nn.ReLU(), torch.nn.Flatten())
    result = bench(module, names=["torch", "onnxruntime"], shape="1,3,8,8", threads=(2,), seconds=0.02)
    row = result.row("torch", "f32")
    assert row.status == "ok", row.reason
    assert row.effective_threads == 2
    assert row.peak_bytes is None
    assert "given in memory" in row.memory_note
    assert result.row("onnxruntime", "f32").cosine == pytest.approx(1.0)
    assert result.row("torch", "bf16").cosine == pytest.approx(1.0, abs=1e-2)


@pytest.mark.slow
def test_openvino_and_nncf(files: dict[str, Path]) -> None:
    pytest.importorskip("openvino")
    pytest.importorskip("nncf")
    result = bench(files["tiny.onnx"], names=["openvino"], seconds=0.05, memory=False, calib={"": inputs(16)})
    assert result.row("openvino", "f32").status == "ok"
    theirs = result.row("openvino", "int8")
    assert theirs.status == "ok", theirs.reason
    assert theirs.cosine is not None
    assert theirs.cosine > 0.98
    assert os.environ.get("NNCF_CI"), "NNCF must not send usage data"


def test_the_network_helper_is_what_it_says() -> None:
    assert [n.op_type for n in network().graph.node].count("Conv") == 3
