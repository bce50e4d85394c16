"""Speed of our own networks below eight bits against our own INT8, every file timed in turns in one run, batch 1.

    python bench/against_int8.py --compile FOLDER [--network resnet18] [--recipes cpu-w2a2,cpu-w4a4]
    python bench/against_int8.py --compiled FOLDER [--threads 1,2] [--seconds 1.5]

Random weights: time does not depend on them. Compiling takes minutes and may run on a busy machine, timing takes
seconds and may not. Rows: recipe, threads, median milliseconds, how many times faster than cpu-int8 with the 95 %
interval over rounds, bytes of the file, and how many layers each integer kernel runs.
"""

from __future__ import annotations

import argparse
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import rows as result_rows

from netsuke import engine, models
from netsuke.data import Dataset
from netsuke.measure.engines.base import Session
from netsuke.measure.interleave import interleave
from netsuke.measure.stats import speed_ratio, summarize
from netsuke.pipeline import compress

BASE = "cpu-int8"


def compile_all(network: str, recipes: list[str], folder: Path) -> None:
    """One file a recipe, and the INT8 they are compared with."""
    item, module = models.entry(network), models.build(network)
    x = np.random.default_rng(0).standard_normal((32, *item.shape[1:]), dtype=np.float32)
    folder.mkdir(parents=True, exist_ok=True)
    for recipe in dict.fromkeys([BASE, *recipes]):
        out = folder / f"{recipe}.nsk"
        compress(
            module,
            recipe=recipe,
            calib=Dataset.from_arrays(x),
            shape=item.shape,
            output=out,
            effort="fast",
            measure=False,
        )
        print(f"{out}: {out.stat().st_size} bytes", flush=True)


def timed(network: str, folder: Path, threads: int, seconds: float) -> list[dict[str, Any]]:
    """The rows of every file in the folder."""
    files = {path.stem: path for path in sorted(folder.glob("*.nsk"))}
    loaded = {name: engine.load(path, threads=threads) for name, path in files.items()}
    shape = models.entry(network).shape
    x = np.random.default_rng(1).standard_normal(shape, dtype=np.float32)
    sessions = {
        name: Session(lambda run=run: run.run(x), threads=threads, note=str(run.isa))  # type: ignore[misc]
        for name, run in loaded.items()
    }
    found = interleave(sessions, seconds)
    table = []
    for name, timing in found.items():
        ratio = speed_ratio(found[BASE].rounds_ms, timing.rounds_ms)
        kernels = Counter(row["kernel"] for row in loaded[name].kernels() if row["kernel"].startswith("q"))
        table.append(
            {
                "recipe": name,
                "threads": threads,
                "median_ms": round(summarize(timing.rounds_ms).median_ms, 4),
                "times_faster": round(ratio.value, 3),
                "low": round(ratio.low, 3),
                "high": round(ratio.high, 3),
                "bytes": files[name].stat().st_size,
                "kernels": " ".join(f"{k}:{n}" for k, n in kernels.most_common()),
            }
        )
    return table


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--network", default="resnet18")
    parser.add_argument("--recipes", default="cpu-w2a2,cpu-w4a4")
    parser.add_argument("--compile", type=Path)
    parser.add_argument("--compiled", type=Path)
    parser.add_argument("--threads", default="1,2")
    parser.add_argument("--seconds", type=float, default=1.5)
    options = parser.parse_args()
    if (options.compile is None) == (options.compiled is None):
        parser.error("one of --compile FOLDER and --compiled FOLDER")
    if options.compile is not None:
        compile_all(options.network, options.recipes.split(","), options.compile)
        return
    table: list[dict[str, Any]] = []
    for threads in options.threads.split(","):
        table += timed(options.network, options.compiled, int(threads), options.seconds)
    for row in table:
        print(row, flush=True)
    command = f"python bench/against_int8.py --compiled FOLDER --threads {options.threads}"
    print(result_rows.write("against_int8", command, table))


if __name__ == "__main__":
    main()
