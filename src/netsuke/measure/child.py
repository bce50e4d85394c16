"""Load time, first call and peak memory of one engine, in a process of its own: `python -m netsuke.measure.child
REQUEST.json`.

Only then is memory the engine's alone, and a competitor that crashes takes nothing with it. Prints one JSON line.
"""

from __future__ import annotations

import importlib
import json
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np

from netsuke.measure import engines
from netsuke.measure.engines.base import Subject, Unavailable


def _status(key: str) -> int:
    for line in Path("/proc/self/status").read_text(encoding="ascii", errors="replace").splitlines():
        if line.startswith(key + ":"):
            return int(line.split()[1]) * 1024
    return 0


def _reset_peak() -> None:
    """Start the kernel's high-water mark again from the current size (Linux; elsewhere the mark includes the
    imports).
    """
    try:
        Path("/proc/self/clear_refs").write_text("5", encoding="ascii")
    except OSError:
        return


def read_subject(request: dict[str, Any]) -> Subject:
    """The subject as written by `probe.write_request`."""
    paths = {k: Path(v) if v else None for k, v in request["paths"].items()}
    with np.load(request["feeds"]) as stored:
        feeds = {name: stored[name] for name in request["feed_names"]}
    spec = request.get("torch_spec")
    return Subject(folder=Path(request["folder"]), feeds=feeds, torch_spec=tuple(spec) if spec else None, **paths)


def measure(request: dict[str, Any]) -> dict[str, Any]:
    engine = engines.engine(request["engine"])
    subject = read_subject(request)
    for package in engine.packages:
        if package != "nncf":
            importlib.import_module(package)
    before = _status("VmRSS")
    _reset_peak()
    begin = time.perf_counter()
    session = engine.open(subject, request["precision"], request["threads"])
    loaded = time.perf_counter()
    session.activate()
    session.run()
    first = time.perf_counter()
    for _ in range(3):
        session.run()
    return {
        "load_ms": (loaded - begin) * 1e3,
        "first_ms": (first - loaded) * 1e3,
        "peak_bytes": max(0, _status("VmHWM") - before),
    }


def main() -> int:
    request = json.loads(Path(sys.argv[1]).read_text(encoding="utf-8"))
    try:
        result = measure(request)
    except Unavailable as error:
        result = {"unavailable": str(error)}
    except Exception as error:
        result = {"error": f"{type(error).__name__}: {error}"}
    Path(request["result"]).write_text(json.dumps(result), encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
