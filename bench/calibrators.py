"""Which calibrator: every calibrator and correction on the CIFAR-10 ResNets, run by our own engine.

    python bench/calibrators.py --data-root DIR --models-root DIR [--networks resnet20,...] [--recipes mse,...]

256 calibration images of the training split (seed 0). Judged on the 1,000 lossless and the 10,000 JPEG test images:
change of accuracy in points, share of equal top-1 answers, relative L2 change of the logits.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import Any

import numpy as np
import rows as result_rows

from netsuke.capture import capture
from netsuke.core.recipe import Recipe
from netsuke.data import Dataset, load_data
from netsuke.methods.quantize import ptq
from netsuke.methods.quantize._context import feeds
from netsuke.models import build
from netsuke.pipeline.runner import EngineRunner

BASE, BIAS, EVEN = "quantize/whitepaper_int8", "quantize/bias_correction", "quantize/equalization"
RECIPES = {
    "minmax": [f"{BASE}:calibrator=minmax"],
    "moving_average": [f"{BASE}:calibrator=moving_average"],
    "percentile": [f"{BASE}:calibrator=percentile"],
    "entropy": [f"{BASE}:calibrator=entropy"],
    "mse": [BASE],
    "mse, mse weights": [f"{BASE}:weights=mse"],
    "mse, bias correction": [BASE, BIAS],
    "mse, mse weights, bias correction": [f"{BASE}:weights=mse", BIAS],
    "equalization, mse": [EVEN, BASE],
    "equalization, mse, bias correction": [EVEN, BASE, BIAS],
    "data-free": [BASE],
}
RUN = EngineRunner()


def logits(graph: Any, data: Dataset) -> np.ndarray[Any, Any]:
    """Outputs for all samples."""
    name = graph.graph.outputs[0].name
    return np.concatenate([out[name] for out in RUN(graph, feeds(graph, data, 100), [name])])


def compare(exact: np.ndarray[Any, Any], other: np.ndarray[Any, Any], labels: np.ndarray[Any, Any]) -> dict[str, float]:
    """Accuracy, its change in points, agreement and relative change."""
    before, after = exact.argmax(axis=1), other.argmax(axis=1)
    return {
        "top1_float": round(float((before == labels).mean()), 4),
        "change_points": round(100 * float((after == labels).mean() - (before == labels).mean()), 2),
        "same_top1_percent": round(100 * float((before == after).mean()), 2),
        "relative_change": round(float(np.linalg.norm(other - exact) / np.linalg.norm(exact)), 4),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data-root", type=Path, required=True)
    parser.add_argument("--models-root", type=Path, required=True)
    parser.add_argument("--networks", default="resnet20,resnet32,resnet44,resnet56")
    parser.add_argument("--recipes", default=";".join(RECIPES), help="names separated by ;")
    options = parser.parse_args()
    calib = load_data("cifar10:train", options.data_root)
    tests = {split: load_data(f"cifar10:{split}", options.data_root) for split in ("test", "test-jpeg")}
    labels = {s: np.concatenate([y for _, y in d.batches(100) if y is not None]) for s, d in tests.items()}
    command, keys = f"python {sys.argv[0]} --data-root DIR --models-root DIR", ("network", "recipe", "data")
    for network in options.networks.split(","):
        weights = options.models_root / "cifar10_resnet" / f"{network}.safetensors"
        graph = capture(build(network, weights=weights), shape=(1, 3, 32, 32))
        exact = {split: logits(graph, data) for split, data in tests.items()}
        for name in options.recipes.split(";"):
            data = None if name == "data-free" else calib
            plan = ptq.make_plan(graph, recipe=Recipe.make(RECIPES[name]), calib=data, runner=RUN, effort="fast")
            quantized = ptq.quantize(graph, plan=plan, calib=data, runner=RUN)
            table: list[dict[str, Any]] = []
            for split in tests:
                row = compare(exact[split], logits(quantized, tests[split]), labels[split])
                table.append({"network": network, "recipe": name, "data": f"cifar10:{split}", **row})
                print(table[-1], flush=True)
            print(result_rows.write("calibrators", command, table, keys=keys))


if __name__ == "__main__":
    main()
