"""A binary ResNet-18 (Bi-Real style, INT8 stem and head) beside every engine installed running the ordinary ResNet-18,
interleaved in one run, batch 1, 224x224, random weights.

    python bench/binary.py [--threads 1,2] [--seconds 2] [--binary reactnet_a --ordinary mobilenetv2]
    python bench/binary.py --compile file.nsk; python bench/binary.py --compiled file.nsk   # timing alone

Rows say engine, precision, threads, median, p90, spread and ratios against the best INT8 and the best
float32 engine; ours also which shares of its time one-bit layers, other integer operators and float ones take.
"""

from __future__ import annotations

import argparse
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import rows as result_rows

from netsuke import models
from netsuke import program as files
from netsuke.data import Dataset
from netsuke.measure import bench
from netsuke.passes.report import ONE_BIT, packed_report
from netsuke.pipeline import compress


def flat(row: dict[str, Any]) -> dict[str, Any]:
    """Scalars only: every timing stays in the JSON of `netsuke bench`."""
    return {k: v for k, v in row.items() if not isinstance(v, (list, dict))}


def shares(program: Any, layers: list[dict[str, Any]]) -> dict[str, float]:
    """Of the time in operators at one thread: one-bit layers with their packing, other integers, floats."""
    kinds = {row["name"]: row["kind"] for row in packed_report(program)}
    total, parts = sum(float(row["ms"]) for row in layers), {"one_bit": 0.0, "integer": 0.0, "float": 0.0}
    for row in layers:
        packed = "integer" if kinds.get(row["name"]) in ("packed", "movement") else "float"
        parts["one_bit" if row["op"] in (*ONE_BIT, "sign_pack") else packed] += float(row["ms"])
    return {f"share_{key}": round(value / total, 4) for key, value in parts.items()} if total else {}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--threads", default="1,2")
    parser.add_argument("--seconds", type=float, default=2.0)
    parser.add_argument("--binary", default="bireal_resnet18")
    parser.add_argument("--ordinary", default="resnet18")
    parser.add_argument("--name", default="binary", help="name of the result file")
    parser.add_argument("--engines", default="", help="engines to compare with, default all")
    parser.add_argument("--precisions", default="", help="of the engines, default all")
    parser.add_argument("--effort", default="normal", help="of compress")
    parser.add_argument("--compile", default="", help="only write this file")
    parser.add_argument("--compiled", default="", help="time this file instead of compiling")
    options = parser.parse_args()
    item = models.entry(options.binary)
    x = np.random.default_rng(0).standard_normal((32, *item.shape[1:]), dtype=np.float32)
    with tempfile.TemporaryDirectory() as folder:
        out = Path(options.compiled or options.compile or Path(folder) / f"{options.binary}.nsk")
        if not options.compiled:
            given: dict[str, Any] = {"calib": Dataset.from_arrays(x), "shape": item.shape, "output": out}
            small = compress(models.build(options.binary), effort=options.effort, **given)
            print(small.summary(), flush=True)
        if options.compile:
            return
        settings: dict[str, Any] = {"threads": [int(t) for t in options.threads.split(",")], "seconds": options.seconds}
        if options.engines:
            settings["names"] = options.engines.split(",")
        if options.precisions:
            settings["precisions"] = options.precisions.split(",")
        calib = {files.read(out).inputs[0].name: x}
        ordinary, program = models.build(options.ordinary), files.read(out)
        result = bench(out, vs=ordinary, shape=item.shape, calib=calib, layers=True, **settings)
    print(result, flush=True)
    table = [{"network": options.binary, "beside": options.ordinary, **flat(row.as_json())} for row in result.rows]
    found = shares(program, result.layers)
    print(found, flush=True)
    table = [row | found if row["engine"] == "netsuke" else row for row in table]
    layers = [{"network": options.binary, **layer} for layer in result.layers]
    command = f"python bench/binary.py --threads {options.threads} --seconds {options.seconds:g}"
    print(result_rows.write(options.name, command, table, keys=("network", "engine", "precision", "threads")))
    print(result_rows.write(f"{options.name}_layers", command, layers, keys=("network", "name")))


if __name__ == "__main__":
    main()
