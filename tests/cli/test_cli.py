"""The command line: words that scripts rely on, exit codes, where output goes, errors."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import typer

from netsuke.cli import common, main
from netsuke.pipeline.runner import EngineRunner
from netsuke.verify.runners import runtime_available
from tiny_network import inputs, write_all


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    return write_all(tmp_path_factory.mktemp("cli"))


@pytest.fixture(scope="module")
def compressed(files: dict[str, Path]) -> Path:
    output = files["tiny.onnx"].with_suffix(".nsk")
    arguments = ["compress", files["tiny.onnx"], "--recipe", "cpu-int8", "--calib", files["calib.npz"], "-o", output]
    assert call(*arguments, "--effort", "fast", "--json", output.parent / "compress.json") == 0
    return output


def call(*arguments: Any) -> int:
    return common.run(main.app, [str(a) for a in arguments])


def test_compress_writes_file_json_and_record(compressed: Path) -> None:
    content = json.loads((compressed.parent / "compress.json").read_text())
    assert content["bytes"]["after"] == compressed.stat().st_size < content["bytes"]["before"]
    assert {"packed", "simulated", "float", "fallback"} <= content["layers"].keys()
    record = json.loads(Path(f"{compressed}.json").read_text())
    assert record["schema"] == content["schema"] == "netsuke.compress/1"
    assert not Path(f"{compressed}.run").exists(), "a finished run leaves no folder"


def test_results_go_to_stdout_and_progress_to_stderr(files: dict[str, Path], tmp_path: Path, capfd: Any) -> None:
    output = tmp_path / "s.nsk"
    assert call("compress", files["tiny.onnx"], "--calib", files["calib.npz"], "-o", output, "--effort", "fast") == 0
    out, err = capfd.readouterr()
    assert out.startswith("tiny   ")
    assert len(out.splitlines()) >= 3
    assert "memory: at most" in err
    assert "memory: at most" not in out
    assert "\033[" not in out + err, "no colour when it is not a terminal"


def test_check_gives_the_promised_keys(compressed: Path, files: dict[str, Path], tmp_path: Path, capfd: Any) -> None:
    target = tmp_path / "check.json"
    status = call("check", compressed, "--against", files["tiny.onnx"], "--data", files["eval.npz"], "--json", target)
    assert status == 0
    metrics = json.loads(target.read_text())["metrics"]
    assert metrics["float"] == {"top1": 1.0}
    assert set(metrics["compressed"]) == set(metrics["drop"]) == {"top1"}
    assert "top1" in capfd.readouterr().out


def test_a_failed_check_is_exit_4(compressed: Path, files: dict[str, Path], tmp_path: Path, capfd: Any) -> None:
    rng = np.random.default_rng(0)
    wrong = tmp_path / "wrong.npz"
    np.savez(wrong, x=inputs(8), y=rng.integers(0, 4, 8))
    arguments = ["check", compressed, "--against", files["tiny.onnx"], "--data", wrong, "--no-layers"]
    assert call(*arguments) == 0
    assert call(*arguments, "--max-drop", "top7:1%") == 4
    assert "no such metric" in capfd.readouterr().err


def test_a_missed_contract_is_exit_3_and_the_file_is_there(files: dict[str, Path], tmp_path: Path, capfd: Any) -> None:
    output = tmp_path / "s.nsk"
    status = call(
        "compress",
        files["tiny.onnx"],
        "--calib",
        files["calib.npz"],
        "-o",
        output,
        "--effort",
        "fast",
        "--size",
        "0.01x",
    )
    assert status == 3
    assert output.exists()
    assert "contract MISSED" in capfd.readouterr().out


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (["bench", "x.nsk", "--engines", "onnxruntim"], "did you mean onnxruntime?"),
        (["bench", "x.nsk", "--precision", "int9"], "did you mean int8?"),
        (["bench", "x.nsk", "--threads", "two"], "--threads"),
        (["bench", "x.nsk", "--format", "xml"], "--format"),
        (["bench", "x.nsk", "--fail-if", "slower:3%"], "belongs to --compare"),
        (["bench", "missing.nsk"], "no such file"),
        (["compres"], "did you mean compress"),
        (["check", "x.nsk", "--agains", "m"], "--against"),
        (["compress"], "no network given"),
        (["compress", "m.onnx", "-o", "m.bin"], ".nsk"),
        (["explain", "quantize/minmix"], "did you mean"),
        (["methods", "show", "quantize/minmix"], "did you mean"),
        (["methods", "show"], "takes one name"),
        (["methods", "quantize/*", "bits/*"], "one pattern at a time"),
        (["methods", "quantise"], "did you mean"),
        (["report", "missing.nsk"], "missing.nsk"),
        (["inspect", "resnet21"], "did you mean"),
    ],
)
def test_wrong_use_is_exit_2_with_one_clear_line(arguments: list[str], told: str, capfd: Any) -> None:
    assert call(*arguments) == 2
    err = capfd.readouterr().err
    assert told in err
    assert "Traceback" not in err


def test_all_problems_come_at_once(capfd: Any) -> None:
    assert call("compress", "--recipe", "cpu-int8") == 2
    err = capfd.readouterr().err
    assert "2 problems" in err
    assert "MODEL" in err
    assert "-o" in err


def test_debug_shows_the_traceback(capfd: Any) -> None:
    assert call("report", "missing.nsk", "--debug") == 2
    assert "Traceback" in capfd.readouterr().err


def test_a_bug_of_ours_is_not_a_traceback(capfd: Any) -> None:
    app = typer.Typer()

    @app.command()
    def broken() -> None:
        raise RuntimeError("oops")

    assert common.run(app, []) == 70
    err = capfd.readouterr().err
    assert "internal error: RuntimeError: oops" in err
    assert "Traceback" not in err


def test_interrupt_is_exit_130(capfd: Any) -> None:
    app = typer.Typer()

    @app.command()
    def stopped() -> None:
        raise KeyboardInterrupt

    assert common.run(app, []) == 130
    assert "interrupted" in capfd.readouterr().err


def test_an_interrupted_run_is_kept_and_resumes(
    files: dict[str, Path], tmp_path: Path, monkeypatch: Any, capfd: Any
) -> None:
    output = tmp_path / "s.nsk"
    with monkeypatch.context() as patch:
        patch.setattr(EngineRunner, "_over", lambda self: self.may_stop)
        assert (
            call("compress", files["tiny.onnx"], "--calib", files["calib.npz"], "-o", output, "--effort", "fast") == 3
        )
    err = capfd.readouterr().err
    assert f"resume with: netsuke compress --resume {output}.run" in err
    cut = output.read_bytes()
    assert call("compress", "--resume", f"{output}.run") == 0
    assert not Path(f"{output}.run").exists()
    whole = tmp_path / "whole.nsk"
    assert call("compress", files["tiny.onnx"], "--calib", files["calib.npz"], "-o", whole, "--effort", "fast") == 0
    assert output.read_bytes() == whole.read_bytes() != cut
    assert call("compress", files["tiny.onnx"], "--resume", tmp_path / "none.run") == 2


@pytest.mark.slow
def test_a_factory_in_a_python_file(tmp_path: Path, capfd: Any) -> None:
    torch = pytest.importorskip("torch")
    safetensors = pytest.importorskip("safetensors.torch")
    source = tmp_path / "net.py"
    source.write_text(
        "import torch\n\n"
        "def make():\n"
        "    n = torch.nn\n"
        "    return n.Sequential(n.Conv2d(1, 8, 3), n.ReLU(), n.AdaptiveAvgPool2d(1), n.Flatten(), n.Linear(8, 3))\n"
    )
    torch.manual_seed(0)
    scope: dict[str, Any] = {}
    exec(source.read_text(), scope)
    safetensors.save_file(scope["make"]().state_dict(), tmp_path / "w.safetensors")
    np.savez(tmp_path / "c.npz", x=np.random.default_rng(0).standard_normal((16, 1, 6, 6)).astype(np.float32))
    model = ["--weights", tmp_path / "w.safetensors", "--shape", "1,1,6,6"]
    output = tmp_path / "s.nsk"
    arguments = ["compress", f"{source}:make", *model, "--calib", tmp_path / "c.npz", "-o", output, "--effort", "fast"]
    assert call(*arguments) == 0
    assert capfd.readouterr().out.startswith("make   ")
    target = tmp_path / "k.json"
    assert (
        call("check", output, "--against", f"{source}:make", *model, "--data", tmp_path / "c.npz", "--json", target)
        == 0
    )
    assert json.loads(target.read_text())["metrics"]["compressed"]["cosine"] > 0.99


def test_plan_writes_a_file_that_compress_follows(files: dict[str, Path], tmp_path: Path, capfd: Any) -> None:
    plan, output, target = tmp_path / "plan.toml", tmp_path / "s.nsk", tmp_path / "c.json"
    common_arguments = ["--calib", files["calib.npz"], "--effort", "fast"]
    assert call("plan", files["tiny.onnx"], *common_arguments, "--keep", "conv2", "-o", plan) == 0
    assert "conv2" in capfd.readouterr().out
    assert call("compress", files["tiny.onnx"], "--plan", plan, *common_arguments, "-o", output, "--json", target) == 0
    assert json.loads(target.read_text())["layers"]["float"] == 1
    assert call("plan", files["tiny.onnx"], *common_arguments, "--keep", "conv9") == 2
    assert "no layer matches" in capfd.readouterr().err


def test_inspect_both_kinds(files: dict[str, Path], compressed: Path, tmp_path: Path, capfd: Any) -> None:
    for item, kind in ((files["tiny.onnx"], "float network"), (compressed, "program")):
        target = tmp_path / "i.json"
        assert call("inspect", item, "--json", target) == 0
        content = json.loads(target.read_text())
        assert content["kind"] == kind
        assert content["totals"]["layers"]["packed"] >= 5
        assert "conv1" in capfd.readouterr().out


def test_report_writes_three_files(compressed: Path, tmp_path: Path, capfd: Any) -> None:
    assert call("report", compressed, "-o", tmp_path / "r.html") == 0
    assert sorted(p.name for p in tmp_path.iterdir()) == ["r.html", "r.json", "r.onnx"]
    assert "r.html" in capfd.readouterr().out


def test_methods_and_explain(capfd: Any, tmp_path: Path) -> None:
    assert call("methods", "quantize/*", "--json", tmp_path / "m.json") == 0
    names = [m["name"] for m in json.loads((tmp_path / "m.json").read_text())["methods"]]
    assert "quantize/minmax" in names
    capfd.readouterr()
    assert call("methods", "show", "quantize/minmax") == 0
    page = capfd.readouterr().out
    assert "Paper:" in page
    assert "netsuke papers show quant-whitepaper" in page
    assert call("explain", "quantize/minmax") == 0
    assert capfd.readouterr().out == page


@pytest.mark.skipif(not runtime_available(), reason="the compiled runtime is not built")
def test_run(compressed: Path, tmp_path: Path, capfd: Any) -> None:
    data, output = tmp_path / "x.npy", tmp_path / "y.npz"
    np.save(data, inputs(3))
    assert call("run", compressed, "--input", data, "-o", output, "--kernels") == 0
    assert np.load(output)["logits"].shape == (3, 4)
    assert "qconv" in capfd.readouterr().out
    data.write_bytes(b"not an array")
    assert call("run", compressed, "--input", data) == 2


@pytest.mark.skipif(not runtime_available(), reason="the compiled runtime is not built")
def test_bench_and_compare(compressed: Path, files: dict[str, Path], tmp_path: Path, capfd: Any) -> None:
    target = tmp_path / "bench.json"
    arguments = [
        "bench",
        compressed,
        "--vs",
        files["tiny.onnx"],
        "--threads",
        "1,2",
        "--engines",
        "netsuke",
        "--seconds",
        "0.03",
    ]
    assert call(*arguments, "--no-memory", "--layers", "--json", target) == 0
    content = json.loads(target.read_text())
    assert {(r["engine"], r["precision"], r["threads"]) for r in content["rows"]} == {
        ("netsuke", p, t) for p in ("f32", "int8") for t in (1, 2)
    }
    assert {"conv1", "head"} <= {r["name"] for r in content["layers"]}
    assert "| netsuke int8" in capfd.readouterr().out
    assert call("bench", "--compare", target, target, "--fail-if", "slower:3%") == 0
    slower = content
    for r in slower["rows"]:
        r["median_ms"] *= 2
        r["rounds_ms"] = [[2 * t for t in times] for times in r["rounds_ms"]]
    (tmp_path / "slow.json").write_text(json.dumps(slower))
    assert call("bench", "--compare", target, tmp_path / "slow.json", "--fail-if", "slower:3%") == 4
    assert "slower" in capfd.readouterr().err


def test_every_verb_has_json_debug_and_help(capfd: Any) -> None:
    for verb in [*main.VERBS[:-1], "claim run"]:
        assert call(*verb.split(), "--help") == 0
        text = capfd.readouterr().out
        assert "--json" in text, verb
        assert "--debug" in text, verb


def test_the_command_starts_without_torch_and_reports_its_status() -> None:
    code = "import sys\nfrom netsuke.cli import common, main\nstatus = common.run(main.app, ['--version'])\n"
    code += "print('torch' in sys.modules, 'onnx' in sys.modules, status)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    version, loaded = done.stdout.splitlines()
    assert version.startswith("netsuke ")
    assert loaded == "False False 0"
    wrong = subprocess.run([sys.executable, "-m", "netsuke.cli.main", "nonsense"], capture_output=True, text=True)
    assert wrong.returncode == 2


def test_budget_chooses_bits_and_compress_follows(files: dict[str, Path], tmp_path: Path, capfd: Any) -> None:
    plan, output, target = tmp_path / "bits.toml", tmp_path / "s.nsk", tmp_path / "c.json"
    data = ["--calib", files["calib.npz"]]
    arguments = [*data, "--budget", "size=0.83x", "--sensitivity", "sqnr", "--allocator", "pareto"]
    assert call("plan", files["tiny.onnx"], *arguments, "-o", plan, "--json", target) == 0
    printed = capfd.readouterr().out
    assert "trade-off" in printed
    assert "chosen" in printed
    content = json.loads(target.read_text())
    assert call("plan", files["tiny.onnx"], *data, "--budget", "size=0.1x") == 2  # the file's text alone takes more
    assert "cannot be met" in capfd.readouterr().err
    assert {p["name"] for p in content["curve"]} == {"", "chosen", "uniform"}
    assert call("compress", files["tiny.onnx"], "--plan", plan, *data, "-o", output, "--json", target) == 0
    made = json.loads(target.read_text())
    assert made["exactness"]["exact"]
    assert min(row["weight_bits"] for row in made["layer_table"] if row["weight_bits"]) < 8


def test_uniform_bits_and_what_contradicts_them(files: dict[str, Path], tmp_path: Path, capfd: Any) -> None:
    target = tmp_path / "p.json"
    arguments = ["--calib", files["calib.npz"], "--effort", "fast"]
    assert call("plan", files["tiny.onnx"], *arguments, "--bits", "w4a6", "--json", target) == 0
    assert "w4a6" in capfd.readouterr().out
    for wrong, message in (
        (["--bits", "9"], "2 to 8"),
        (["--bits", "4", "--recipe", "cpu-int8"], "two ways"),
        (["--budget", "size=0.2x,speed=2"], "speed"),
        (["--recipe", "cpu-int8", "--budget", "bops=0.5x"], "bit search"),
        (["--recipe", "cpu-int8", "--allocator", "pareto"], "no bit search"),
    ):
        assert call("plan", files["tiny.onnx"], *arguments, *wrong) == 2
        assert message in capfd.readouterr().err


@pytest.mark.skipif(not runtime_available(), reason="the compiled runtime is not built")
def test_tune_knows_the_size_that_a_network_was_calibrated_with(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: Any
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    free, rng = ["N", 3, "H", "W"], np.random.default_rng(0)
    graph = onnx.helper.make_graph(
        [onnx.helper.make_node("Conv", ["x", "w"], ["y"], name="conv", pads=[1, 1, 1, 1])],
        "g",
        [onnx.helper.make_tensor_value_info("x", onnx.TensorProto.FLOAT, free)],
        [onnx.helper.make_tensor_value_info("y", onnx.TensorProto.FLOAT, ["N", 8, "H", "W"])],
        [onnx.numpy_helper.from_array(rng.standard_normal((8, 3, 3, 3)).astype(np.float32), "w")],
    )
    onnx.save(onnx.helper.make_model(graph, opset_imports=[onnx.helper.make_opsetid("", 17)]), tmp_path / "free.onnx")
    np.savez(tmp_path / "c.npz", x=rng.standard_normal((4, 3, 10, 12)).astype(np.float32))
    arguments = ["compress", tmp_path / "free.onnx", "--calib", tmp_path / "c.npz", "--effort", "fast"]
    assert call(*arguments, "-o", tmp_path / "free.nsk") == 0
    assert call("tune", tmp_path / "free.nsk", "--threads", 1) == 0
    capfd.readouterr()
