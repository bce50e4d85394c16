"""Which way of computing a layer is fastest on this CPU: measured once, kept by CPU, used by every later load.

    found = tune("small.nsk", threads=2); print(found)
    net = load("small.nsk", threads=2)   an Engine that takes what was measured on this CPU before

A layer's ways (direct tiles, Winograd, bit planes, a spanning tree of its filters) differ in time only: results are the
same bits. What is stored is a JSON file a person can read: milliseconds by layer key and way. A way replaces the rule's
own only where it is at least 3 % faster, so that noise moves nothing.
"""

from __future__ import annotations

import json
import os
import threading
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from netsuke import engine
from netsuke.engine.native import choose_isa, runtime
from netsuke.measure import environment, machine
from netsuke.measure.feeds import concrete_shapes, random_feeds
from netsuke.program import Program

SCHEMA = "netsuke.kernel-choices/1"
MARGIN = 0.03
RUNS = 15


@dataclass
class Tuning:
    """Milliseconds by layer key and way ("" is the rule's own choice), and the nodes that have each key."""

    isa: str
    threads: int
    ms: dict[str, dict[str, float]] = field(default_factory=dict)
    rule: dict[str, str] = field(default_factory=dict)
    nodes: dict[str, list[str]] = field(default_factory=dict)

    def choices(self) -> dict[str, str]:
        """The way to take, for every key where another than the rule's is faster."""
        found = {}
        for key, times in self.ms.items():
            rule = self.rule[key]
            best = min(times, key=lambda way: times[way])
            if best != rule and times[best] < times[rule] * (1 - MARGIN):
                found[key] = best
        return found

    def __str__(self) -> str:
        chosen = self.choices()
        lines = [f"{len(self.ms)} kinds of layers with several ways, {self.isa}, {self.threads} threads"]
        for key, times in self.ms.items():
            way = chosen.get(key, self.rule[key])
            text = "  ".join(f"{name} {value:.3f}" for name, value in sorted(times.items()))
            lines.append(f"{way:10s} {text} ms   {', '.join(self.nodes.get(key, [])) or key}")
        return "\n".join(lines)


def store_path(isa: str, threads: int) -> Path:
    """The file of this CPU, instruction set and number of threads, in the cache folder."""
    return machine.cache_folder() / f"kernels-{environment.cpu_identity()}-{isa}-{threads}.json"


def read(isa: str, threads: int) -> Tuning:
    """What was measured here before; empty where nothing was, or where the file is torn."""
    found = Tuning(isa, threads)
    try:
        stored = json.loads(store_path(isa, threads).read_text(encoding="utf-8"))
        if stored.get("schema") == SCHEMA:
            for key, row in stored["layers"].items():
                times = {str(way): float(ms) for way, ms in row["ms"].items()}
                if str(row["rule"]) in times:
                    found.ms[str(key)], found.rule[str(key)] = times, str(row["rule"])
                    found.nodes[str(key)] = [str(name) for name in row["nodes"]]
    except (OSError, ValueError, TypeError, KeyError, AttributeError):
        return Tuning(isa, threads)
    return found


def write(tuning: Tuning) -> Path:
    """Store it beside what is known of other layers; returns the path. A read-only home only costs measuring again."""
    known, path = read(tuning.isa, tuning.threads), store_path(tuning.isa, tuning.threads)
    rows = {}
    for part in (known, tuning):
        for key, times in part.ms.items():
            rows[key] = {"rule": part.rule[key], "ms": times, "nodes": part.nodes.get(key, [])}
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        part_file = path.with_suffix(".part")
        text = json.dumps({"schema": SCHEMA, "layers": rows}, sort_keys=True, indent=1)
        part_file.write_text(text, encoding="utf-8")
        part_file.replace(path)
    except OSError:
        return path
    return path


_lock = threading.RLock()
_used: dict[str, str] = {}


def use(choices: Mapping[str, str]) -> None:
    """Programs loaded from now on take these ways; {} takes the rules' own everywhere."""
    global _used
    native, _used = runtime(), dict(choices)
    if choices or hasattr(native, "set_choices"):  # an older runtime takes the rules' own, which {} asks for
        native.set_choices(dict(choices))


def use_stored(isa: str | None = None, threads: int | None = None) -> dict[str, str]:
    """Take what was measured on this CPU for this instruction set and number of threads; returns the choices."""
    native = runtime()
    found = read(isa or str(native.best_isa()), threads or int(native.default_threads())).choices()
    use(found)
    return found


def load(
    source: str | os.PathLike[str] | Program, *, threads: int | None = None, isa: str | None = None, max_memory: int = 0
) -> engine.Engine:
    """An Engine for a .nsk file or a program in memory, each layer computed in the way that `tune` found fastest here.

    Arguments and errors are those of `netsuke.engine.load`, which takes the rules' own ways. Results are the same bits:
    ways differ in time only. Where nothing was tuned on this CPU for this instruction set and number of threads, both
    are the same.
    """
    wanted = choose_isa(isa)
    with _lock:  # choices are the process's: another load must not see these
        before = dict(_used)
        use_stored(wanted, threads)
        try:
            return engine.load(source, threads=threads, isa=isa, max_memory=max_memory)
        finally:
            use(before)


def tune(
    source: str | Path | Program,
    feeds: Mapping[str, Any] | None = None,
    *,
    threads: int | None = None,
    isa: str | None = None,
    runs: int = RUNS,
) -> Tuning:
    """Time every way of every layer in turns, store the result and use it from now on.

    source  path of a .nsk file or a Program
    feeds   inputs whose shapes matter; random ones of the declared shape, free dimensions 1 or 224, where absent
    runs    timed runs of each way, two rounds: the smaller median counts
    """
    use({})
    plain = engine.load(source, threads=threads, isa=isa)
    if feeds is None:
        feeds = random_feeds(plain.inputs, concrete_shapes(plain.inputs), 0)
    found = Tuning(str(plain.isa), int(plain.threads))
    several = [row for row in plain.kernels() if len(row["ways"]) > 1]
    for row in several:
        found.rule[row["key"]] = row["ways"][0]
        found.nodes.setdefault(row["key"], []).append(row["node"])
    try:
        for _ in range(2):
            for way in dict.fromkeys(way for row in several for way in row["ways"]):
                use({row["key"]: way for row in several if way in row["ways"]})
                loaded = engine.load(source, threads=threads, isa=isa)
                _add(found, loaded, way, feeds, runs)
    finally:
        use({})
    write(found)
    use(read(found.isa, found.threads).choices())
    return found


def _add(found: Tuning, loaded: engine.Engine, way: str, feeds: Mapping[str, Any], runs: int) -> None:
    """Sum the times of the nodes of each key; keep the smaller sum of the rounds."""
    sums: dict[str, float] = {}
    for row in loaded.profile(feeds, runs=runs):
        if len(row["ways"]) > 1 and way in row["ways"]:
            sums[row["key"]] = sums.get(row["key"], 0.0) + float(row["ms"])
    for key, ms in sums.items():
        times = found.ms.setdefault(key, {})
        times[way] = min(times.get(way, ms), ms)
