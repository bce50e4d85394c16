"""Speed of INT8 programs beside every engine installed, interleaved in one run, batch 1, random bell-shaped weights.

    python bench/speed.py [--networks resnet18,...] [--threads 1,2] [--seconds 2]

Every layer is INT8, as it is for the other engines: the plan is made without sensitivities (effort "fast"), which
would keep layers of some networks in float. Rows say engine, precision, threads, median, p90, spread, ratios; the
per-layer table with shares of this machine's limits goes to speed_layers.csv.
"""

from __future__ import annotations

import argparse
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import rows as result_rows
import torch
from torch import nn

from netsuke import models
from netsuke.data import Dataset
from netsuke.measure import bench
from netsuke.pipeline import compress

KEYS = ("network", "engine", "precision", "threads")
# Without sensitivities no layer is kept in float for accuracy's sake (random weights have none to lose).
EFFORT = "fast"
NETWORKS = ("resnet18", "resnet50", "mobilenetv2", "vit_tiny", "resnet20")


def bell_shaped(name: str) -> nn.Module:
    """The network with weights drawn from normal distributions of the same variances, and BatchNorm settled again.

    Trained weights are bell-shaped, with longer tails still: codes of the CIFAR ResNets have a standard deviation of
    36, normal ones of 3x3 layers with 16 to 64 channels 38 to 44, uniform ones (PyTorch's default) 73. Kernels that
    prove from the codes that 16-bit sums are exact take trained and normal weights, not uniform ones.
    """
    module = models.build(name)
    generator = torch.Generator().manual_seed(1)
    for layer in module.modules():
        if isinstance(layer, (nn.Conv2d, nn.Linear)):
            with torch.no_grad():
                layer.weight.normal_(0.0, float(layer.weight.std()), generator=generator)
    torch.manual_seed(0)
    models.settle_batchnorm(module, models.entry(name))
    return module.eval()


def flat(row: dict[str, Any]) -> dict[str, Any]:
    """Scalars only: every timing stays in the JSON of `netsuke bench`."""
    return {k: v for k, v in row.items() if not isinstance(v, (list, dict))}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--networks", default=",".join(NETWORKS))
    parser.add_argument("--threads", default="1,2")
    parser.add_argument("--seconds", type=float, default=2.0)
    parser.add_argument("--name", default="speed", help="name of the result file")
    parser.add_argument("--engines", help="comma-separated; default: every engine installed")
    options = parser.parse_args()
    threads = [int(t) for t in options.threads.split(",")]
    with tempfile.TemporaryDirectory() as folder:
        for name in options.networks.split(","):
            item = models.entry(name)
            module = bell_shaped(name)
            x = np.random.default_rng(0).standard_normal((32, *item.shape[1:]), dtype=np.float32)
            out = Path(folder) / f"{name}.nsk"
            small = compress(module, calib=Dataset.from_arrays(x), shape=item.shape, output=out, effort=EFFORT)
            print(small.summary(), flush=True)
            calib = {small.program.inputs[0].name: x}
            settings: dict[str, Any] = {"threads": threads, "calib": calib, "seconds": options.seconds, "layers": True}
            if options.engines:
                settings["names"] = options.engines.split(",")
            result = bench(out, vs=module, shape=item.shape, **settings)
            print(result, flush=True)
            table = [{"network": name, "quiet": result.verdict["valid"], **flat(row.as_json())} for row in result.rows]
            layers = [{"network": name, **layer} for layer in result.layers]
            command = f"python bench/speed.py --networks {options.networks} --threads {options.threads}"
            print(result_rows.write(options.name, command, table, keys=KEYS))
            print(result_rows.write(f"{options.name}_layers", command, layers, keys=("network", "name")))


if __name__ == "__main__":
    main()
