"""netsuke-run: the engine without Python gives the same bytes, and says what is wrong."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest
from tests.engine.test_engine import X, network

from netsuke.engine import load
from netsuke.program import write

ROOT = Path(__file__).parents[2]
# Newest first last; an ARM build is not for this CPU.
TOOLS = sorted(
    (p for p in ROOT.glob("build*/**/netsuke-run") if "arm" not in p.parts[-3]), key=lambda path: path.stat().st_mtime
)


@pytest.fixture
def tool() -> Path:
    if not TOOLS:
        pytest.skip("netsuke-run is not built (make build)")
    return TOOLS[-1]


def run(tool: Path, *args: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([str(tool), *args], capture_output=True, text=True, timeout=60, check=False)


def test_same_bytes_as_the_engine(tool: Path, tmp_path: Path) -> None:
    model, source, target = tmp_path / "net.nsk", tmp_path / "x.bin", tmp_path / "y.bin"
    write(network(), model)
    source.write_bytes(X.tobytes())
    files = ["--input", f"x={source}", "--output", f"logits={target}"]
    found = run(tool, str(model), "--shape", "x=4,8", *files, "--runs", "3", "--layers", "--threads", "1")
    assert found.returncode == 0, found.stderr
    assert target.read_bytes() == load(network()).run(X)["logits"].tobytes()
    assert "median" in found.stdout
    assert all(name in found.stdout for name in ("quant", "fc", "dequant", "qlinear_"))


@pytest.mark.parametrize(
    ("args", "words"),
    [
        ([], "usage:"),
        (["MODEL", "--isa", "mmx"], "portable"),
        (["MODEL", "--shape", "x=4,9"], "dimension 1 must be 8"),
        (["MODEL", "--shape", "z=4,8"], "no input 'z'"),
        (["MODEL", "--threads", "none"], "'none' is not a number"),
        (["MODEL", "--bogus"], "unknown argument '--bogus'"),
        (["/nonexistent.nsk"], "cannot open"),
    ],
)
def test_wrong_use(tool: Path, tmp_path: Path, args: list[str], words: str) -> None:
    model = tmp_path / "net.nsk"
    write(network(), model)
    found = run(tool, *[str(model) if word == "MODEL" else word for word in args])
    assert found.returncode == 2
    assert words in found.stderr
