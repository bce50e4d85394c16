"""What a number depends on: CPU, kernel, governor, memory, versions, commit, and what else the machine was doing."""

from __future__ import annotations

import hashlib
import importlib.metadata
import os
import platform
import resource
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

PACKAGES = ("netsuke", "numpy", "onnx", "onnx_ir", "torch", "onnxruntime", "openvino", "nncf")
_FEATURES = ("avx2", "fma", "avx512f", "avx512_vnni", "avx_vnni", "avx512_bf16", "amx_int8", "asimd", "asimddp", "i8mm")


def _read(path: str) -> str:
    try:
        return Path(path).read_text(encoding="utf-8", errors="replace").strip()
    except OSError:
        return ""


def cpu() -> dict[str, Any]:
    """Model name, family, features that matter here, and the cores this process may use."""
    fields: dict[str, str] = {}
    for line in _read("/proc/cpuinfo").splitlines():
        key, colon, value = line.partition(":")
        if not colon and fields:
            break
        fields.setdefault(key.strip(), value.strip())
    flags = set((fields.get("flags") or fields.get("Features") or "").split())
    name = fields.get("model name") or platform.processor() or platform.machine()
    return {
        "name": name,
        "vendor": fields.get("vendor_id", ""),
        "family": fields.get("cpu family", ""),
        "model": fields.get("model", ""),
        "stepping": fields.get("stepping", ""),
        "microcode": fields.get("microcode", ""),
        "machine": platform.machine(),
        "features": [f for f in _FEATURES if f in flags],
        "cores": usable_cores(),
    }


def usable_cores() -> int:
    """Cores this process may run on (affinity), not those the machine has."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else (os.cpu_count() or 1)


def cpu_identity() -> str:
    """Short key of this CPU: limits measured on it are cached under this name."""
    facts = {k: v for k, v in cpu().items() if k != "microcode"}
    return hashlib.sha256(repr(sorted(facts.items())).encode()).hexdigest()[:16]


def memory_bytes() -> int:
    for line in _read("/proc/meminfo").splitlines():
        if line.startswith("MemTotal:"):
            return int(line.split()[1]) * 1024
    return 0


def versions() -> dict[str, str]:
    """Installed versions; a package that is not installed is absent."""
    found = {"python": platform.python_version()}
    for name in PACKAGES:
        try:
            found[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            continue
    if "netsuke" not in found:
        import netsuke

        found["netsuke"] = netsuke.__version__
    return found


def commit() -> str:
    """Commit of the source tree netsuke was imported from, with "+" when files differ from it; "" for an installed
    wheel.
    """
    root = Path(__file__).resolve().parents[3]
    if not (root / ".git").exists():
        return ""
    try:
        head = subprocess.run(
            ["git", "-C", str(root), "rev-parse", "--short=12", "HEAD"], capture_output=True, text=True, timeout=10
        )
        dirty = subprocess.run(
            ["git", "-C", str(root), "status", "--porcelain", "-uno"], capture_output=True, text=True, timeout=10
        )
    except (OSError, subprocess.TimeoutExpired):
        return ""
    return head.stdout.strip() + ("+" if dirty.stdout.strip() else "") if head.returncode == 0 else ""


def capture() -> dict[str, Any]:
    """The environment block that goes with every result."""
    return {
        "cpu": cpu(),
        "memory_bytes": memory_bytes(),
        "os": f"{platform.system()} {platform.release()}",
        "governor": _read("/sys/devices/system/cpu/cpu0/cpufreq/scaling_governor") or "unknown",
        "load_average": round(os.getloadavg()[0], 2) if hasattr(os, "getloadavg") else None,
        "versions": versions(),
        "commit": commit(),
        "forced_isa": os.environ.get("NETSUKE_ISA", ""),
        "time": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
    }


def file_hash(path: Path) -> str:
    """sha256 of a file in hexadecimal."""
    digest = hashlib.sha256()
    with path.open("rb") as stream:
        while block := stream.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()


def _status_bytes(key: str) -> int:
    """A line of /proc/self/status in bytes; 0 where there is none."""
    lines = _read("/proc/self/status").splitlines()
    return next((1024 * int(line.split()[1]) for line in lines if line.startswith(key)), 0)


def resident_bytes() -> int:
    """Resident size of this process now; its peak where the system does not say."""
    return _status_bytes("VmRSS") or peak_memory_bytes()


def peak_memory_bytes() -> int:
    """Largest resident size of this process so far.

    Linux says it in /proc; getrusage there also counts the process this one was forked from.
    """
    found = _status_bytes("VmHWM")
    if found:
        return found
    usage = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return usage if sys.platform == "darwin" else usage * 1024


@dataclass
class Disturbance:
    """Between `start()` and `stop()`: how much CPU others took, how much the hypervisor withheld, how often we were
    pushed aside.
    """

    others: float = 0.0  # cores busy with other processes, average
    stolen: float = 0.0  # cores withheld by the hypervisor, average
    switches: float = 0.0  # involuntary context switches per second
    _begin: tuple[float, float, float, float, int] = (0.0, 0.0, 0.0, 0.0, 0)

    @staticmethod
    def _sample() -> tuple[float, float, float, float, int]:
        tick = float(os.sysconf("SC_CLK_TCK"))
        busy = steal = 0.0
        line = _read("/proc/stat").splitlines()[:1]
        if line:
            ticks = [float(v) for v in line[0].split()[1:9]]
            busy, steal = (ticks[0] + ticks[1] + ticks[2] + ticks[5] + ticks[6]) / tick, ticks[7] / tick
        own = time.process_time()
        return time.monotonic(), busy, steal, own, resource.getrusage(resource.RUSAGE_SELF).ru_nivcsw

    def start(self) -> Disturbance:
        self._begin = self._sample()
        return self

    def stop(self) -> Disturbance:
        wall0, busy0, steal0, own0, switches0 = self._begin
        wall1, busy1, steal1, own1, switches1 = self._sample()
        wall = max(wall1 - wall0, 1e-9)
        self.others = max(0.0, (busy1 - busy0) - (own1 - own0)) / wall
        self.stolen = max(0.0, steal1 - steal0) / wall
        self.switches = (switches1 - switches0) / wall
        return self


def worst(parts: Sequence[Disturbance]) -> Disturbance:
    """The largest of each figure over several stretches of timing."""
    return Disturbance(
        others=max((p.others for p in parts), default=0.0),
        stolen=max((p.stolen for p in parts), default=0.0),
        switches=max((p.switches for p in parts), default=0.0),
    )
