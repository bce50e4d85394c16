"""`doctor`: what of this machine and this installation works, what does not, and the one thing to do about it."""

from __future__ import annotations

import importlib
import importlib.metadata
import importlib.util
import shutil
from dataclasses import asdict, dataclass, field
from typing import Any

from netsuke.measure import environment, machine

SCHEMA = "netsuke.doctor/1"
_EXTRAS = (
    ("torch", "torch", "PyTorch networks as input, training", 'pip install "netsuke[torch]"'),
    ("onnxscript", "torch", "export of PyTorch networks", 'pip install "netsuke[torch]"'),
    ("onnxruntime", "bench", "competitor in netsuke bench", 'pip install "netsuke[bench]"'),
    ("openvino", "bench", "competitor in netsuke bench", 'pip install "netsuke[bench]"'),
    ("nncf", "bench", "OpenVINO's own INT8 in netsuke bench", 'pip install "netsuke[bench]"'),
)


@dataclass(frozen=True)
class Finding:
    """One line: "ok", "note" (works without it) or "problem", and what to do."""

    level: str
    what: str
    detail: str
    fix: str = ""


@dataclass
class Health:
    """Findings, environment, instruction sets, limits. `ok` is false when something needed does not work."""

    findings: list[Finding]
    environment: dict[str, Any]
    isas: list[str]
    limits: dict[str, machine.Limits] = field(default_factory=dict)

    @property
    def ok(self) -> bool:
        return all(f.level != "problem" for f in self.findings)

    def as_json(self) -> dict[str, Any]:
        return {
            "schema": SCHEMA,
            "ok": self.ok,
            "findings": [asdict(f) for f in self.findings],
            "environment": self.environment,
            "isas": self.isas,
            "limits": {k: asdict(v) for k, v in self.limits.items()},
        }

    def __str__(self) -> str:
        marks = {"ok": "ok     ", "note": "note   ", "problem": "PROBLEM"}
        lines = []
        for f in self.findings:
            lines.append(f"{marks[f.level]}  {f.what:18} {f.detail}")
            if f.fix:
                lines.append(f"{'':9}{'':18} fix: {f.fix}")
        lines += ["", *_limit_lines(self.limits)] if self.limits else []
        return "\n".join(lines)


def _limit_lines(limits: dict[str, machine.Limits]) -> list[str]:
    lines = ["limits of one core    float32   bfloat16      int16       int8 GMAC/s      L1     L2     L3   DRAM GB/s"]
    for isa, v in limits.items():
        rates = "".join(f"{r:11.1f}" if r else f"{'-':>11}" for r in (v.f32_gmacs, v.bf16_gmacs, v.int16_gmacs))
        memory = "".join(f"{r:7.0f}" if r else f"{'-':>7}" for r in (v.l1_gbs, v.l2_gbs, v.l3_gbs, v.dram_gbs))
        lines.append(f"  {isa:16}{rates}{v.int8_gmacs:11.1f}       {memory}")
    return lines


def _runtime(isas: list[str]) -> Finding:
    try:
        importlib.import_module("netsuke._runtime")
    except ImportError as error:
        fix = "pip install --force-reinstall netsuke, or in a source tree: make build"
        detail = f"the compiled runtime does not load ({error}); programs run in the slow reference interpreter"
        return Finding("problem", "runtime", detail, fix)
    return Finding("ok", "runtime", f"compiled, instruction sets on this CPU: {', '.join(isas) or 'portable'}")


def _machine() -> list[Finding]:
    env = environment.cpu()
    found = [
        Finding("ok", "cpu", f"{env['name']}, {env['cores']} cores usable, {', '.join(env['features']) or 'baseline'}")
    ]
    governor = environment.capture()["governor"]
    if governor in ("powersave", "ondemand", "conservative", "schedutil"):
        found.append(
            Finding(
                "note", "governor", f"{governor}: timings will wobble", "sudo cpupower frequency-set -g performance"
            )
        )
    found.append(Finding("ok", "memory", f"{environment.memory_bytes() / 1e9:.1f} GB"))
    return found


def _extras() -> list[Finding]:
    found = []
    for package, _extra, purpose, fix in _EXTRAS:
        if importlib.util.find_spec(package) is None:
            found.append(Finding("note", package, f"not installed: {purpose}", fix))
        else:
            found.append(Finding("ok", package, f"{importlib.metadata.version(package)}   {purpose}"))
    return found


def _tools() -> list[Finding]:
    browser = next((b for b in ("chromium", "chromium-browser", "google-chrome") if shutil.which(b)), "")
    detail = f"{browser} (only its tests need one)" if browser else "no Chromium: reports still open in any browser"
    return [Finding("ok" if browser else "note", "browser", detail)]


def known_isas() -> list[str]:
    """Instruction sets the compiled runtime can use on this CPU, best first; empty without the runtime."""
    try:
        runtime = importlib.import_module("netsuke._runtime")
    except ImportError:
        return []
    return [name for name, present in runtime.isas() if present]


def doctor(*, measure: bool = True, again: bool = False) -> Health:
    """Look at CPU, runtime, extras and tools; measure the machine's limits once (`again`: once more) and cache them."""
    isas = known_isas()
    findings = [_runtime(isas), *_machine(), *_extras(), *_tools()]
    limits = machine.read_cached()
    if measure and (again or not limits):
        limits = machine.measure()
    if limits:
        findings.append(Finding("ok", "limits", f"measured, kept in {machine.cache_file()}"))
    elif measure:
        findings.append(Finding("note", "limits", "not measured: needs the compiled runtime"))
    return Health(findings, environment.capture(), isas, limits)
