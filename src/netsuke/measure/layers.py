"""The per-layer table: what ran, how long, at what rate, how far from what this machine can do."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from netsuke.measure import machine
from netsuke.measure.engines.base import Array
from netsuke.measure.machine import Limits
from netsuke.measure.subject import Prepared


def _kind(kernel: str, op: str) -> str:
    """Which arithmetic limit a layer is held against."""
    if op in ("bconv", "blinear"):
        return "bit"
    if op.startswith("q") or kernel.startswith("wlinear_a8"):
        return "int8"
    return "bf16" if "bf16" in kernel else "f32"


def _bandwidth(limits: Limits, bytes_moved: float) -> float:
    """The read rate of the memory level the layer's data fits, GB/s."""
    for size, rate in ((32e3, limits.l1_gbs), (1e6, limits.l2_gbs), (32e6, limits.l3_gbs)):
        if bytes_moved <= size and rate > 0:
            return rate
    return limits.dram_gbs


def rate(row: Mapping[str, Any], limits: Limits | None, threads: int) -> dict[str, Any]:
    """GMAC/s, GB/s and the share of the nearer limit of one profile row (ms, macs, bytes_read, bytes_written, op,
    kernel).

    "of_limit" is the time the limit would allow over the time taken: the larger of the arithmetic and the memory bound.
    """
    seconds = max(float(row["ms"]), 1e-6) / 1e3
    macs, moved = float(row["macs"]), float(row["bytes"])
    result: dict[str, Any] = {
        "gmacs": macs / seconds / 1e9 if macs else None,
        "gbs": moved / seconds / 1e9,
        "of_limit": None,
        "bound_by": "-",
    }
    if limits is None:
        return result
    compute, memory = limits.compute(_kind(str(row["kernel"]), str(row["op"]))), _bandwidth(limits, moved)
    bounds = []
    if macs and compute:
        bounds.append((macs / (compute * threads * 1e9), "arithmetic"))
    if memory:
        bounds.append((moved / (memory * threads * 1e9), "memory"))
    if bounds:
        least, result["bound_by"] = max(bounds)
        result["of_limit"] = min(1.0, least / seconds)
    return result


def rows_from_profile(profile: list[dict[str, Any]], limits: Limits | None, threads: int) -> list[dict[str, Any]]:
    """Profile rows of the engine with shares and rates added, in execution order."""
    total = sum(float(r["ms"]) for r in profile) or 1.0
    return [
        {
            "name": r["node"],
            "op": r["op"],
            "kernel": r["kernel"],
            "isa": r["isa"],
            "shape": list(r["shape"]),
            "ms": float(r["ms"]),
            "share": float(r["ms"]) / total,
            "macs": int(r["macs"]),
            "bytes": int(r["bytes"]),
            **rate(r, limits, threads),
        }
        for r in profile
    ]


def profile_layers(loaded: Any, feeds: Mapping[str, Array], threads: int, runs: int = 20) -> list[dict[str, Any]]:
    """Profile a loaded engine and hold every layer against the cached limits of its instruction set."""
    limits = machine.limits(str(getattr(loaded, "isa", ""))) or machine.limits()
    return rows_from_profile(loaded.profile(feeds, runs=runs), limits, threads)


def layer_table(ready: Prepared, threads: int, batch: int) -> list[dict[str, Any]]:
    """Layers of the compressed program, or of the float program where there is no compressed one."""
    from netsuke import engine

    path = ready.files.get("nsk") or ready.files["float_nsk"]
    return profile_layers(engine.load(path, threads=threads), ready.subject(batch).feeds, threads)
