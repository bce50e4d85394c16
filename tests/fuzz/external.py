"""The engine in another process: `netsuke-run`, cross-compiled for another CPU and run under an emulator."""

from __future__ import annotations

import subprocess
import tempfile
from dataclasses import replace
from pathlib import Path

import numpy as np

from netsuke.program import write
from netsuke.program.interpreter import run
from netsuke.program.model import Port, Program

from .differential import Difference, all_values, compare_all
from .maker import Array


def exposing(program: Program, names: list[str], arrays: dict[str, Array]) -> Program:
    """The program with all of `names` as its outputs."""
    ports = [
        Port(name, program.values[name].dtype, tuple(f"{name}.{i}" for i in range(arrays[name].ndim))) for name in names
    ]
    return replace(program, outputs=ports)


def run_external(command: list[str], program: Program, feeds: dict[str, Array], isa: str) -> dict[str, Array] | str:
    """Every node output as `netsuke-run` computes it, or what it printed when it failed."""
    reference = run(program, feeds, all_values(program))
    names = all_values(program)
    with tempfile.TemporaryDirectory() as folder:
        model = Path(folder) / "p.nsk"
        write(exposing(program, names, reference), model)
        arguments = [str(model), "--isa", isa, "--threads", "2", "--runs", "1"]
        for name, array in feeds.items():
            (Path(folder) / name).write_bytes(array.tobytes())
            shape = ",".join(map(str, array.shape))
            arguments += ["--shape", f"{name}={shape}", "--input", f"{name}={folder}/{name}"]
        for name in names:
            arguments += ["--output", f"{name}={folder}/{name}"]
        done = subprocess.run([*command, *arguments], capture_output=True, text=True, timeout=300, check=False)
        if done.returncode:
            return f"exit code {done.returncode}: {done.stderr[-500:]}"
        return {name: _load(Path(folder) / name, reference[name]) for name in names}


def _load(path: Path, like: Array) -> Array:
    data = np.frombuffer(path.read_bytes(), like.dtype)
    return data.reshape(like.shape) if data.size == like.size else data


def check_external(
    command: list[str], program: Program, feeds: dict[str, Array], family: str, isas: list[str]
) -> list[Difference]:
    """Integer programs: every value equals the reference. Float programs: every value equals this CPU's engine."""
    if family == "integer":
        want = run(program, feeds, all_values(program))
    else:
        from netsuke.engine import load

        want = load(program, threads=1).run(feeds, all_values(program))
    found: list[Difference] = []
    for isa in isas:
        got = run_external(command, program, feeds, isa)
        if isinstance(got, str):
            found.append(Difference(f"{command[0]} {isa}", "", None, got))
        else:
            found += compare_all(f"{command[0]} {isa}", program, got, want)
    return found
