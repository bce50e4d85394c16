"""The limits of this machine: what one core computes and reads at best. Measured once by `netsuke doctor`, cached per
CPU.

The loops are in runtime/limits: register-resident multiply-adds and streaming reads. No kernel can beat them, so a
layer's rate over its limit says how much is left. Under a busy machine the loops measure too little; the cache keeps
the larger of old and new.
"""

from __future__ import annotations

import importlib
import json
import os
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from netsuke.measure import environment

SCHEMA = "netsuke.limits/2"  # goes up when the loops change: limits of other loops are not comparable


@dataclass(frozen=True)
class Limits:
    """Of one core at instruction set `isa`: giga multiply-adds per second and gigabytes per second; 0 where the CPU
    has no such thing.
    """

    isa: str
    f32_gmacs: float
    bf16_gmacs: float
    int16_gmacs: float
    int8_gmacs: float
    l1_gbs: float
    l2_gbs: float
    l3_gbs: float
    dram_gbs: float
    bit_gmacs: float = 0.0  # XOR and popcount; 0 in files measured before it was

    def compute(self, kind: str) -> float:
        """GMAC/s of "f32", "bf16", "int16", "int8" or "bit"; 0 when not measured."""
        return float(getattr(self, f"{kind}_gmacs", 0.0))


def cache_folder() -> Path:
    """Where netsuke keeps measured facts about this machine."""
    base = os.environ.get("XDG_CACHE_HOME") or str(Path.home() / ".cache")
    return Path(base) / "netsuke"


def cache_file() -> Path:
    return cache_folder() / f"limits-{environment.cpu_identity()}.json"


def read_cached() -> dict[str, Limits]:
    """Limits by instruction set as measured before on this CPU; empty when never measured or unreadable."""
    try:
        stored = json.loads(cache_file().read_text(encoding="utf-8"))
        if stored.get("schema") != SCHEMA:
            return {}
        return {isa: Limits(**values) for isa, values in stored["limits"].items()}
    except (OSError, ValueError, TypeError, KeyError):
        return {}


def _runtime() -> Any:
    try:
        return importlib.import_module("netsuke._runtime")
    except ImportError:
        return None


def measure(isas: list[str] | None = None) -> dict[str, Limits]:
    """Measure now (about a second per instruction set) and cache. Empty when the compiled runtime is absent."""
    runtime = _runtime()
    if runtime is None or not hasattr(runtime, "limits"):
        return {}
    found = dict(read_cached())
    for isa in isas if isas is not None else [name for name, present in runtime.isas() if present]:
        fresh: Mapping[str, float] = runtime.limits(isa, 1.0)
        old = found.get(isa)
        values = {k: max(v, getattr(old, k, 0.0) if old else 0.0) for k, v in fresh.items()}
        found[isa] = Limits(isa=isa, **values)
    file = cache_file()
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        content = {"schema": SCHEMA, "cpu": environment.cpu(), "limits": {isa: asdict(v) for isa, v in found.items()}}
        file.write_text(json.dumps(content, indent=1), encoding="utf-8")
    except OSError:
        return found  # a read-only home only costs measuring again
    return found


def limits(isa: str = "", *, measure_now: bool = False) -> Limits | None:
    """Limits of one instruction set (default: the best one measured), from the cache, or measured now when asked."""
    known = read_cached()
    if measure_now and (not known or (isa and isa not in known)):
        known = measure()
    if isa:
        return known.get(isa)
    return max(known.values(), key=lambda v: v.int8_gmacs, default=None)
