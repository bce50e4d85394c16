"""Was the machine quiet enough to believe the numbers, and if not, what was the likely cause."""

from __future__ import annotations

import os
from typing import Any

from netsuke.measure import environment
from netsuke.measure.environment import Disturbance
from netsuke.measure.rows import Row
from netsuke.measure.stats import drift

# Limits chosen so that a repeat on the same machine usually stays within 5%: see bench/README.
MAX_SPREAD = 0.25  # (p90 - p10) / median
MAX_DRIFT = 0.10
MAX_OTHERS = 0.15  # cores busy with other processes
MAX_STOLEN = 0.03


def _causes(disturbance: Disturbance, oversubscribed: list[Row]) -> list[str]:
    causes = []
    if disturbance.others > MAX_OTHERS:
        causes.append(f"other processes used {disturbance.others:.1f} cores: stop them or wait")
    if disturbance.stolen > MAX_STOLEN:
        causes.append(
            f"the hypervisor withheld {disturbance.stolen:.2f} cores: a shared machine, repeat at another time"
        )
    if oversubscribed:
        causes.append(f"more threads than the {environment.usable_cores()} cores this process may use")
    governor = environment.capture()["governor"]
    if governor in ("powersave", "ondemand", "conservative", "schedutil"):
        causes.append(f"the frequency governor is {governor}: set it to performance")
    return causes


def judge(rows: list[Row], disturbance: Disturbance) -> dict[str, Any]:
    """{"valid", "reasons", "causes", ...}: reasons are what was seen in the timings, causes what the machine was
    doing.
    """
    timed = [r for r in rows if r.summary is not None]
    reasons = []
    for row in timed:
        spread = row.summary.spread if row.summary else 0.0
        where = f"{row.label}, {row.threads} thread{'s' * (row.threads > 1)}"
        if spread > MAX_SPREAD:
            reasons.append(f"{where}: spread {spread:.0%} of the median")
        if (moved := drift(row.rounds_ms)) > MAX_DRIFT:
            reasons.append(f"{where}: the median moved by {moved:.0%} during the run")
        if row.summary and row.summary.rounds < 5:
            reasons.append(f"{where}: only {row.summary.rounds} rounds; give it more --seconds")
    causes = _causes(disturbance, [r for r in timed if r.threads > environment.usable_cores()])
    if reasons and not causes:
        causes.append(
            "no cause seen from here: perhaps frequency scaling or a neighbour on the same host; raise --seconds"
        )
    return {
        "valid": not reasons,
        "reasons": reasons,
        "causes": causes if reasons else [],
        "cores_used_by_others": round(disturbance.others, 3),
        "cores_stolen": round(disturbance.stolen, 3),
        "involuntary_switches_per_s": round(disturbance.switches, 1),
        "load_average": round(os.getloadavg()[0], 2) if hasattr(os, "getloadavg") else None,
    }
