"""Compressing ResNet-50 and loading the result: time and memory.

    python bench/load.py [--only compress|load] [--images 256]

Targets: `netsuke compress` of ResNet-50 with 256 calibration images under 3 minutes on two cores; cold load under 100
ms; peak memory of loading and running at most weights + planned arena + 20 MB.
"""

from __future__ import annotations

import argparse
import json
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import rows as result_rows

# Run in a process of its own. The file's pages are dropped from the page cache first, so the load is cold.
PROBE = """
import json, os, sys, time
import numpy as np
from netsuke import engine
engine.load(sys.argv[2]).run(np.zeros((1, 1, 8, 8), np.float32))  # Python modules and the thread pool are not the load
def resident(key):
    return next(int(l.split()[1]) * 1024 for l in open("/proc/self/status") if l.startswith(key))
handle = os.open(sys.argv[1], os.O_RDONLY)
os.posix_fadvise(handle, 0, 0, os.POSIX_FADV_DONTNEED)
before = resident("VmRSS")
start = time.perf_counter()
net = engine.load(sys.argv[1], threads=int(sys.argv[3]))
loaded = time.perf_counter() - start
x = np.zeros((1, 3, 224, 224), np.float32)
start = time.perf_counter()
net.run(x)
first = time.perf_counter() - start
print(json.dumps({"load_ms": 1e3 * loaded, "first_ms": 1e3 * first, "extra_peak_bytes": resident("VmHWM") - before,
                  "arena_bytes": net.arena_bytes((1, 3, 224, 224))}))
"""


def compress(folder: Path, model: str, calib: str, out: Path, *extra: str) -> tuple[float, float, int]:
    """Seconds, processor seconds and peak bytes of the command line.

    On a busy machine half of the processor seconds is what two cores of one's own would need at least.
    """
    command = [sys.executable, "-m", "netsuke.cli.main", "compress", model, "--calib", calib, "-o", str(out), *extra]
    before, used = time.perf_counter(), resource.getrusage(resource.RUSAGE_CHILDREN)
    subprocess.run(command, check=True, cwd=folder)
    now = resource.getrusage(resource.RUSAGE_CHILDREN)
    spent = now.ru_utime + now.ru_stime - used.ru_utime - used.ru_stime
    facts = json.loads(Path(f"{out}.json").read_text(encoding="utf-8"))["facts"]
    for phase in facts["phases"]:
        print(
            f"  {phase['phase']:16} {phase['seconds']:7.1f} s {phase['peak_memory_bytes'] / 2**20:7.0f} MB", flush=True
        )
    return time.perf_counter() - before, spent, facts["peak_memory_bytes"]


def measure_compress(folder: Path, out: Path, images: int) -> dict[str, Any]:
    """The row of compressing ResNet-50: seconds, processor seconds, the peak and the bound announced for it."""
    x = np.random.default_rng(0).standard_normal((images, 3, 224, 224), dtype=np.float32)
    np.savez(folder / "calib.npz", x=x)
    del x
    seconds, spent, peak = compress(folder, "models:resnet50", "calib.npz", out)
    bound = json.loads(Path(f"{out}.json").read_text(encoding="utf-8"))["facts"]["memory_bound_bytes"]
    figures = {"seconds": round(seconds, 1), "processor_seconds": round(spent, 1)}
    return {
        "what": f"compress resnet50, {images} images",
        **figures,
        "peak_mb": peak >> 20,
        "announced_mb": bound >> 20,
    }


def measure_load(out: Path, small: Path, threads: int) -> dict[str, Any]:
    """The row of loading: medians of seven processes."""
    command = [sys.executable, "-c", PROBE, str(out), str(small), str(threads)]
    runs = [json.loads(subprocess.check_output(command)) for _ in range(7)]
    best = {key: float(np.median([run[key] for run in runs])) for key in runs[0]}
    return {
        "what": f"cold load resnet50, {threads} threads",
        "load_ms": round(best["load_ms"], 1),
        "first_ms": round(best["first_ms"], 1),
        "extra_peak_mb": round(best["extra_peak_bytes"] / 2**20, 1),
        "weights_plus_arena_mb": round((out.stat().st_size + best["arena_bytes"]) / 2**20, 1),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", choices=("compress", "load"), help="one half; the other keeps the rows it has")
    parser.add_argument("--images", type=int, default=256, help="calibration images")
    options = parser.parse_args()
    table: list[dict[str, Any]] = []
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        small, out = folder / "digits.nsk", folder / "resnet50.nsk"
        if options.only != "load":
            table.append(measure_compress(folder, out, options.images))
            print(table[-1], flush=True)
        else:  # which images calibrate changes nothing about loading
            np.savez(
                folder / "calib.npz", x=np.zeros((4, 3, 224, 224), np.float32) + np.linspace(-2, 2, 224, dtype="f4")
            )
            compress(folder, "models:resnet50", "calib.npz", out, "--effort", "fast")
        if options.only != "compress":
            compress(folder, "models:digits_cnn", "digits", small)
            for threads in (1, 2):
                table.append(measure_load(out, small, threads))
                print(table[-1], flush=True)
    print(result_rows.write("load", "python bench/load.py", table, keys=("what",)))


if __name__ == "__main__":
    main()
