"""The folder of a run: what was asked, and how far it came, so that an interrupted `compress` can be resumed.

request.json     the arguments, and hashes of model and data: a resumed run with other inputs is refused
plan.toml        once planned (the slow part: sensitivities)
calibration.npz  statistics of the samples seen so far: calibration goes on behind them
quantized.onnx   once calibrated on all samples
"""

from __future__ import annotations

import json
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from netsuke.core.errors import FileError, Problem
from netsuke.core.plan import Plan

VERSION = 1


@dataclass
class Request:
    """Arguments of one run as they are stored. Live objects cannot be stored: a run over them cannot be resumed."""

    model: str
    recipe: str = "cpu-int8"
    plan: str = ""
    calib: str = ""
    evaluate: str = ""
    size: str = ""
    drop: str = ""
    time: str = ""
    effort: str = "normal"
    shape: str = ""
    weights: str = ""
    seed: int = 0
    threads: int | None = None
    data_root: str = ""
    preprocess: str = ""
    output: str = ""
    onnx: str = ""
    bits: str = ""
    budget: str = ""
    allow_simulated: bool = False


@dataclass(frozen=True)
class RunFolder:
    """One run on disk."""

    path: Path

    @classmethod
    def create(cls, path: Path, request: dict[str, Any]) -> RunFolder:
        """A fresh folder; what an earlier run left there is dropped."""
        if path.exists():
            shutil.rmtree(path)
        path.mkdir(parents=True)
        content = {"version": VERSION, **request}
        (path / "request.json").write_text(json.dumps(content, indent=1), encoding="utf-8")
        return cls(path)

    @classmethod
    def open(cls, path: Path) -> tuple[RunFolder, dict[str, Any]]:
        """An interrupted run and its request; FileError when the folder is not one."""
        file = path / "request.json"
        try:
            request = json.loads(file.read_text(encoding="utf-8"))
        except (OSError, ValueError) as error:
            raise FileError(Problem("not the folder of a run", where=str(path), got=str(error))) from None
        if request.pop("version", None) != VERSION:
            raise FileError(Problem("a run of another version", where=str(path), allowed=f"version {VERSION}"))
        return cls(path), request

    def bind(self, digest: str) -> None:
        """Remember what the run is about; FileError when it was about something else."""
        file = self.path / "inputs.sha256"
        if not file.exists():
            file.write_text(digest, encoding="ascii")
        elif file.read_text(encoding="ascii") != digest:
            what = "the network or the calibration data changed since this run began"
            raise FileError(Problem(what, where=str(self.path), hint="start a new run"))

    def plan(self) -> Plan | None:
        file = self.path / "plan.toml"
        return Plan.load(file) if file.exists() else None

    def save_plan(self, plan: Plan) -> None:
        plan.save(self.path / "plan.toml")

    def quantized(self) -> Any:
        file = self.path / "quantized.onnx"
        if not file.exists():
            return None
        import onnx_ir

        return onnx_ir.load(file)

    def save_quantized(self, model: Any) -> None:
        import onnx_ir

        part = self.path / "quantized.part.onnx"
        onnx_ir.save(model, part)
        part.rename(self.path / "quantized.onnx")  # whole or absent

    @property
    def statistics(self) -> Path:
        """Where calibration leaves what it has seen."""
        return self.path / "calibration.npz"

    def remove(self) -> None:
        shutil.rmtree(self.path, ignore_errors=True)
