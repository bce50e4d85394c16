"""INT8 against float on the CIFAR-10 ResNets and a small Fashion-MNIST CNN.

    python bench/accuracy.py --data-root DIR --models-root DIR [--fashion fashion.safetensors]

DIR holds cifar10/ and fashion_mnist/ (see `netsuke.data.builtin`), and cifar10_resnet/*.safetensors. Targets: within
0.3 points of float on the 1,000 lossless test images, the same top-1 as float on at least 98.5% of the 10,000 JPEG
images and within 0.15 points there; Fashion-MNIST within 0.1 points on its 10,000 test images.
"""

from __future__ import annotations

import argparse
import tempfile
from pathlib import Path
from typing import Any

import rows as result_rows

from netsuke.data import load_data
from netsuke.models import build
from netsuke.pipeline import compress
from netsuke.verify import check

NETWORKS = ("resnet20", "resnet32", "resnet44", "resnet56")


def judge(name: str, nsk: Path, module: Any, spec: str, root: Path) -> dict[str, Any]:
    """One row: accuracy before and after, drop in points, agreement, exactness."""
    data = load_data(spec, root)
    result = check(nsk, module, data, batch=64, layers=False)
    top1 = (result.float_metrics["top1"], result.compressed_metrics["top1"])
    return {
        "network": name,
        "data": spec,
        "samples": result.samples,
        "top1_float": round(top1[0], 4),
        "top1_int8": round(top1[1], 4),
        "drop_points": round(100 * (top1[0] - top1[1]), 2),
        "same_top1_percent": round(100 * (result.agreement or 0), 2),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data-root", type=Path, required=True)
    parser.add_argument("--models-root", type=Path, required=True)
    parser.add_argument("--fashion", type=Path)
    parser.add_argument("--networks", default=",".join(NETWORKS), help="others keep the rows they have")
    parser.add_argument("--samples", type=int, default=256, help="calibration images")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        jobs: list[tuple[str, Any, str, tuple[str, ...]]] = []
        for name in filter(None, options.networks.split(",")):
            weights = options.models_root / "cifar10_resnet" / f"{name}.safetensors"
            jobs.append((name, build(name, weights=weights), "cifar10", ("test", "test-jpeg")))
        if options.fashion:
            jobs.append(("fashion_cnn", build("fashion_cnn", weights=options.fashion), "fashion-mnist", ("test",)))
        for name, module, data, splits in jobs:
            calib = load_data(f"{data}:train", options.data_root).take(options.samples)
            out = Path(folder) / f"{name}.nsk"
            small = compress(module, calib=calib, output=out)
            for split in splits:
                row = judge(name, out, module, f"{data}:{split}", options.data_root)
                row["bytes_ratio"] = round(small.bytes_before / small.bytes_after, 2)
                print(row, flush=True)
                command = "python bench/accuracy.py --data-root DIR --models-root DIR"
                result_rows.write("accuracy", command, [row], keys=("network", "data"))


if __name__ == "__main__":
    main()
