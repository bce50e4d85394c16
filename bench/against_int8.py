"""Speed of our own networks below eight bits against our own INT8, every file timed in turns in one run, batch 1.

    python bench/against_int8.py --compile FOLDER [--network resnet18] [--recipes cpu-w2a2,cpu-w4a4]
    python bench/against_int8.py --compiled FOLDER [--threads 1,2] [--seconds 1.5] [--layers]

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


def layers(folder: Path, network: str, threads: int, rounds: int = 12) -> list[dict[str, Any]]:
    """Every integer convolution and product of every file: the median over rounds in which files take turns."""
    shape = models.entry(network).shape
    loaded = {path.stem: engine.load(path, threads=threads) for path in sorted(folder.glob("*.nsk"))}
    x = np.random.default_rng(1).standard_normal(shape, dtype=np.float32)
    rounds_of: dict[str, list[list[dict[str, Any]]]] = {name: [] for name in loaded}
    for _ in range(rounds):
        for name, run in loaded.items():
            rounds_of[name].append(run.profile({run.inputs[0].name: x}, runs=5))
    table = []
    for name, found in rounds_of.items():
        for i, row in enumerate(found[0]):
            if row["op"] not in ("qconv", "qlinear"):
                continue
            took = float(np.median([once[i]["ms"] for once in found]))
            line = {"recipe": name, "threads": threads, "node": row["node"], "kernel": row["kernel"]}
            table.append(line | {"stored": row["stored"], "ms": round(took, 4)})
    base = {row["node"]: row["ms"] for row in table if row["recipe"] == BASE}
    return [row | {"times_faster": round(base[row["node"]] / row["ms"], 3)} for row in table if row["node"] in base]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--network", default="resnet18")
    parser.add_argument("--recipes", default="cpu-w2a2,cpu-w4a4")
    parser.add_argument("--compile", type=Path)
    parser.add_argument("--compiled", type=Path)
    parser.add_argument("--layers", action="store_true", help="times of single layers instead of whole networks")
    parser.add_argument("--threads", default="1,2")
    parser.add_argument("--seconds", type=float, default=1.5)
    options = parser.parse_args()
    if (options.compile is None) == (options.compiled is None):
        parser.error("one of --compile FOLDER and --compiled FOLDER")
    if options.compile is not None:
        compile_all(options.network, options.recipes.split(","), options.compile)
        return
    if options.layers:
        write_layers(options)
        return
    table: list[dict[str, Any]] = []
    for threads in options.threads.split(","):
        table += timed(options.network, options.compiled, int(threads), options.seconds)
    for row in table:
        print(row, flush=True)
    command = f"python bench/against_int8.py --compiled FOLDER --threads {options.threads}"
    print(result_rows.write("against_int8", command, table))


def write_layers(options: argparse.Namespace) -> None:
    table = [row for t in options.threads.split(",") for row in layers(options.compiled, options.network, int(t))]
    for row in table:
        print(row, flush=True)
    command = f"python bench/against_int8.py --compiled FOLDER --layers --threads {options.threads}"
    print(result_rows.write("against_int8_layers", command, table))


if __name__ == "__main__":
    main()
