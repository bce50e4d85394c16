"""Run child.py for one engine and read its answer."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np

from netsuke.measure.engines.base import Subject


def write_request(subject: Subject, engine: str, precision: str, threads: int) -> Path:
    """Everything the child needs, as files in the subject's folder."""
    key = "_".join("x".join(map(str, a.shape)) for a in subject.feeds.values())
    stem = f"probe-{engine}-{precision}-{threads}-{key}"
    feeds = subject.folder / f"feeds-{key}.npz"
    if not feeds.exists():
        named: dict[str, Any] = dict(subject.feeds)
        np.savez(feeds, **named)
    request = subject.folder / f"{stem}.json"
    paths = {k: str(v) if (v := getattr(subject, k)) else None for k in ("onnx", "nsk", "float_nsk", "calibration")}
    content: dict[str, Any] = {
        "engine": engine,
        "precision": precision,
        "threads": threads,
        "paths": paths,
        "folder": str(subject.folder),
        "feeds": str(feeds),
        "feed_names": list(subject.feeds),
        "torch_spec": subject.torch_spec,
        "result": str(subject.folder / f"{stem}.result.json"),
    }
    request.write_text(json.dumps(content), encoding="utf-8")
    return request


def probe(subject: Subject, engine: str, precision: str, threads: int, timeout: float = 300.0) -> dict[str, Any]:
    """{"load_ms", "first_ms", "peak_bytes"}, or {"error": why}, or {"unavailable": why}."""
    request = write_request(subject, engine, precision, threads)
    result = Path(json.loads(request.read_text(encoding="utf-8"))["result"])
    result.unlink(missing_ok=True)
    command = [sys.executable, "-m", "netsuke.measure.child", str(request)]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=timeout)
    except subprocess.TimeoutExpired:
        return {"error": f"no answer within {timeout:.0f} s"}
    if result.exists():
        answer: dict[str, Any] = json.loads(result.read_text(encoding="utf-8"))
        return answer
    if done.returncode < 0:
        return {"error": f"its process died with {signal.Signals(-done.returncode).name}"}
    last = (done.stderr.strip().splitlines() or ["no message"])[-1]
    return {"error": f"its process ended with status {done.returncode}: {last}"}
