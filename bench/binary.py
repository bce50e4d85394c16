"""A binary ResNet-18 (Bi-Real style, INT8 stem and head) beside every engine installed running the ordinary ResNet-18,
interleaved in one run, batch 1, 224x224, random weights.

    python bench/binary.py [--threads 1,2] [--seconds 2]

Rows say engine, precision, threads, median, p90, spread and ratios against the best INT8 and the best
float32 engine.
"""

from __future__ import annotations

import argparse
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import rows as result_rows

from netsuke import models
from netsuke.data import Dataset
from netsuke.measure import bench
from netsuke.pipeline import compress


def flat(row: dict[str, Any]) -> dict[str, Any]:
    """Scalars only: every timing stays in the JSON of `netsuke bench`."""
    return {k: v for k, v in row.items() if not isinstance(v, (list, dict))}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--threads", default="1,2")
    parser.add_argument("--seconds", type=float, default=2.0)
    parser.add_argument("--binary", default="bireal_resnet18")
    parser.add_argument("--ordinary", default="resnet18")
    parser.add_argument("--name", default="binary", help="name of the result file")
    options = parser.parse_args()
    item = models.entry(options.binary)
    x = np.random.default_rng(0).standard_normal((32, *item.shape[1:]), dtype=np.float32)
    threads = [int(t) for t in options.threads.split(",")]
    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder) / f"{options.binary}.nsk"
        small = compress(models.build(options.binary), calib=Dataset.from_arrays(x), shape=item.shape, output=out)
        print(small.summary(), flush=True)
        calib = {small.program.inputs[0].name: x}
        settings: dict[str, Any] = {"threads": threads, "calib": calib, "seconds": options.seconds, "layers": True}
        result = bench(out, vs=models.build(options.ordinary), shape=item.shape, **settings)
        print(result, flush=True)
        table = [{"network": options.binary, **flat(row.as_json())} for row in result.rows]
        layers = [{"network": options.binary, **layer} for layer in result.layers]
    command = f"python bench/binary.py --threads {options.threads} --seconds {options.seconds:g}"
    print(result_rows.write(options.name, command, table))
    print(result_rows.write(f"{options.name}_layers", command, layers))


if __name__ == "__main__":
    main()
