"""Is it faster than the float network, and if not, why: both programs in turns on this machine, whole and layer by
layer.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

import numpy as np

from netsuke.measure import verdict
from netsuke.measure.engines.base import Session
from netsuke.measure.environment import Disturbance
from netsuke.measure.interleave import interleave
from netsuke.measure.layers import profile_layers
from netsuke.measure.rows import Row
from netsuke.measure.stats import speed_ratio, summarize
from netsuke.passes.report import ONE_BIT
from netsuke.verify.runners import Runner

Array = np.ndarray[Any, Any]
SMALL_MS = 0.15  # below this the fixed cost of a call is a good part of the time
_CONVERSIONS = ("quantize", "dequantize", "transpose")


@dataclass
class Timing:
    """Median milliseconds of one call of the float and of the compressed program, batch as stated, and the ratio's
    interval.
    """

    float_ms: float
    compressed_ms: float
    speedup: float
    low: float
    high: float
    threads: int
    isa: str
    batch: int
    quiet: bool
    layers: list[dict[str, Any]] = field(default_factory=list)
    float_layers: list[dict[str, Any]] = field(default_factory=list)
    reason: str = ""

    @property
    def faster(self) -> bool:
        return self.low > 1.0

    def as_json(self) -> dict[str, Any]:
        return asdict(self) | {"faster": self.faster}


def _session(runner: Runner, feeds: Mapping[str, Array]) -> Session:
    engine = runner.engine
    return Session(lambda: list(engine.run(feeds).values()), threads=int(engine.threads), note=str(engine.isa))


def why_not_faster(layers: list[dict[str, Any]], float_ms: float, isa: str) -> str:
    """One sentence: what eats the gain. `layers` is the profile of the compressed program."""
    total = sum(r["ms"] for r in layers) or 1.0
    conversion = sum(r["ms"] for r in layers if r["op"] in _CONVERSIONS) / total
    in_float = [r for r in layers if r["macs"] and not r["op"].startswith("q") and r["op"] not in ONE_BIT]
    floating = sum(r["ms"] for r in in_float) / total
    if isa == "portable":
        return "no vector kernels on this CPU: the portable integer kernels are no faster than portable float ones"
    if float_ms < SMALL_MS:
        return f"the network is too small: a call takes {float_ms:.3f} ms in float, most of it not arithmetic"
    if floating > 0.5:
        most = max(in_float, key=lambda r: float(r["ms"]))
        share = f"{floating * total:.3g} of {total:.3g} ms, most of it {most['name']} ({most['ms']:.3g} ms)"
        return f"layers left in float take {floating:.0%} of the time: {share}"
    if conversion > 0.2:
        return f"converting between float and codes takes {conversion:.0%} of the time: too few integer layers in a row"
    worst = max(layers, key=lambda r: r["ms"])
    return f"the slowest layer, {worst['name']} ({worst['kernel']}), takes {worst['ms'] / total:.0%} of the time"


def measure(floating: Runner, compressed: Runner, feeds: Mapping[str, Array], seconds: float = 0.5) -> Timing | None:
    """Time both in turns and profile both; None without the compiled runtime, whose absence the caller reports."""
    if floating.engine is None or compressed.engine is None:
        return None
    disturbance = Disturbance().start()
    sessions = {"float": _session(floating, feeds), "compressed": _session(compressed, feeds)}
    timings = interleave(sessions, seconds)
    disturbance.stop()
    for timed in timings.values():
        if timed.error:
            raise RuntimeError(timed.error)
    a, b = timings["float"].rounds_ms, timings["compressed"].rounds_ms
    ratio = speed_ratio(a, b)
    batch = len(next(iter(feeds.values())))
    engine = compressed.engine
    rows = [
        Row(n, "", engine.threads, batch, summary=summarize(r), rounds_ms=r) for n, r in (("float", a), ("int8", b))
    ]
    timing = Timing(
        float_ms=summarize(a).median_ms,
        compressed_ms=summarize(b).median_ms,
        speedup=ratio.value,
        low=ratio.low,
        high=ratio.high,
        threads=engine.threads,
        isa=engine.isa,
        batch=batch,
        quiet=bool(verdict.judge(rows, disturbance)["valid"]),
        layers=profile_layers(engine, feeds, engine.threads),
        float_layers=profile_layers(floating.engine, feeds, engine.threads),
    )
    if not timing.faster:
        timing.reason = why_not_faster(timing.layers, timing.float_ms, timing.isa)
    return timing
