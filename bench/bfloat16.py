"""A network whose layers all stay float and compute on bfloat16 by plan, beside the bfloat16 of torch and OpenVINO.

    python bench/bfloat16.py [--networks resnet18] [--threads 1] [--seconds 1] [--engines netsuke,torch,openvino]

What a CPU without bfloat16 instructions does is emulation: the features line of the result says whether it has them.
"""

from __future__ import annotations

import argparse
import tempfile
from pathlib import Path

import numpy as np
import rows as result_rows
from speed import KEYS, bell_shaped, flat

from netsuke import models
from netsuke.data import Dataset
from netsuke.measure import bench, environment
from netsuke.pipeline import compress, plan


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--networks", default="resnet18")
    parser.add_argument("--threads", default="1")
    parser.add_argument("--seconds", type=float, default=1.0)
    parser.add_argument("--engines", default="netsuke,torch,openvino")
    options = parser.parse_args()
    threads = [int(t) for t in options.threads.split(",")]
    table = []
    for name in options.networks.split(","):
        item, module = models.entry(name), bell_shaped(name)
        calib = Dataset.from_arrays(np.random.default_rng(0).standard_normal((4, *item.shape[1:]), dtype=np.float32))
        made = plan(module, calib=calib, shape=item.shape, effort="fast")
        for row in made.rows:
            row.method = "keep"
            if row.weight_bits is not None:  # convolutions and linear layers
                row.weight_bits = 16
            elif row.kernel == "qmatmul":  # products of two activations
                row.activation_bits = 16
        with tempfile.TemporaryDirectory() as folder:
            out = Path(folder) / f"{name}.nsk"
            print(
                compress(module, made, calib=calib, shape=item.shape, output=out, measure=False).summary(), flush=True
            )
            result = bench(
                out, module, shape=item.shape, threads=threads, seconds=options.seconds, memory=False,
                names=options.engines.split(","), precisions=("f32", "bf16"),
            )  # fmt: skip
        print(result, flush=True)
        table += [{"network": name, "quiet": result.verdict["valid"], **flat(row.as_json())} for row in result.rows]
    known = environment.capture()["cpu"]["features"]
    notes = [] if "avx512_bf16" in known else ["this CPU has no bfloat16 instructions: every engine emulates them"]
    print(result_rows.write("bfloat16", "python bench/bfloat16.py", table, notes, keys=KEYS))


if __name__ == "__main__":
    main()
