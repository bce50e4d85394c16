"""Speed of networks below eight bits beside the best INT8 of every engine installed, interleaved in one run, batch 1.

    python bench/lowbit.py [--network resnet18] [--recipes cpu-w4a4,cpu-w4a6,cpu-w4a8,cpu-int8] [--threads 1,2]

Random weights; every recipe is its own run with the competitors' INT8 in it. Rows are as in speed.py, with `recipe` and
`vs_best_int8`: how many times faster than the best competitor's INT8. lowbit_layers.csv lists the kernel of each layer.
"""

from __future__ import annotations

import argparse
import tempfile
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import rows as result_rows

import netsuke
from netsuke import models
from netsuke.data import Dataset
from netsuke.measure import bench
from netsuke.pipeline import compress


def add_ratios(table: list[dict[str, Any]]) -> None:
    """`vs_best_int8` of our rows: the median of the fastest competitor's INT8 at the same threads over ours."""
    for threads in {row["threads"] for row in table}:
        group = [row for row in table if row["threads"] == threads and row.get("median_ms")]
        peers = [
            row["median_ms"] for row in group if not row["engine"].startswith("netsuke") and row["precision"] == "int8"
        ]
        for row in group:
            ours = row["engine"].startswith("netsuke") and peers
            row["vs_best_int8"] = round(min(peers) / row["median_ms"], 3) if ours else ""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--network", default="resnet18")
    parser.add_argument("--recipes", default="cpu-w4a4,cpu-w4a6,cpu-w4a8,cpu-int8")
    parser.add_argument("--threads", default="1,2")
    parser.add_argument("--seconds", type=float, default=2.0)
    parser.add_argument("--engines", default="", help="comma separated; default all installed")
    parser.add_argument("--files", type=Path, help="folder of RECIPE.nsk: those that exist are not compiled again")
    options = parser.parse_args()
    item, module = models.entry(options.network), models.build(options.network)
    x = np.random.default_rng(0).standard_normal((32, *item.shape[1:]), dtype=np.float32)
    table: list[dict[str, Any]] = []
    layers: list[dict[str, Any]] = []
    with tempfile.TemporaryDirectory() as folder:
        for recipe in options.recipes.split(","):
            out = (options.files or Path(folder)) / f"{recipe}.nsk"
            if not out.exists():
                compress(module, recipe=recipe, calib=Dataset.from_arrays(x), shape=item.shape, output=out)
            engine = netsuke.load(out, threads=1)
            chosen = engine.kernels()
            layers += [{"network": options.network, "recipe": recipe, **row} for row in chosen]
            print(recipe, dict(Counter(row["kernel"] for row in chosen if row["kernel"].startswith("q"))), flush=True)
            result = bench(
                out,
                vs=module,
                shape=item.shape,
                threads=[int(t) for t in options.threads.split(",")],
                names=tuple(filter(None, options.engines.split(","))),
                precisions=("int8",),
                calib={engine.inputs[0].name: x},
                seconds=options.seconds,
                memory=False,
            )
            print(result, flush=True)
            rows = [{k: v for k, v in row.as_json().items() if not isinstance(v, (list, dict))} for row in result.rows]
            add_ratios(rows)
            table += [{"network": options.network, "recipe": recipe, **row} for row in rows]
            for row in rows:
                if row["engine"].startswith("netsuke"):
                    print(recipe, row["threads"], "threads:", row["vs_best_int8"], "times the best INT8", flush=True)
    command = (
        f"python bench/lowbit.py --network {options.network} --recipes {options.recipes} --threads {options.threads}"
    )
    keys = ("network", "recipe", "engine", "precision", "threads")
    print(result_rows.write("lowbit", command, table, keys=keys))
    print(result_rows.write("lowbit_layers", command, layers, keys=("network", "recipe", "node")))


if __name__ == "__main__":
    main()
