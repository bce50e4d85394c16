"""Float import: every reference network, captured, compiled and run by the engine, against onnxruntime on the graph
that PyTorch's exporter wrote, at two batch sizes.

    python bench/imports.py [NAME ...]        with names, only their rows are measured anew

Target: largest difference at most 1e-4 of the largest output magnitude.
"""

from __future__ import annotations

import argparse
import sys
import time
from typing import Any

import numpy as np
import onnx_ir
import onnxruntime
import rows as result_rows

from netsuke import engine, models, passes
from netsuke.capture import capture
from netsuke.verify.source import export_model

BATCHES = (1, 3)


def feed(item: models.ModelEntry, batch: int, seed: int) -> np.ndarray[Any, Any]:
    """Random inputs of the network's shape: normal pixels or token ids."""
    rng = np.random.default_rng(seed)
    shape = (batch, *item.shape[1:])
    if item.dtype == "i64":
        return rng.integers(0, 8000, shape)
    return rng.standard_normal(shape, dtype=np.float32)


def judge(name: str) -> list[dict[str, Any]]:
    """One row a batch size."""
    item = models.entry(name)
    started = time.perf_counter()
    graph = capture(name)
    exported = onnx_ir.serde.serialize_model(export_model(name))
    oracle = onnxruntime.InferenceSession(exported.SerializeToString(), providers=["CPUExecutionProvider"])
    program = passes.compile_program(graph, name=name)
    compiled = time.perf_counter() - started
    net = engine.load(program)
    result = []
    for batch in BATCHES:
        x = feed(item, batch, batch)
        want = oracle.run(None, {oracle.get_inputs()[0].name: x})[0]
        got = next(iter(net.run(x).values()))
        scale = float(np.abs(want).max())
        result.append(
            {
                "network": name,
                "batch": batch,
                "relative_error": float(np.abs(want - got).max()) / scale,
                "nodes": len(program.nodes),
                "transposes": sum(n.op == "transpose" for n in program.nodes),
                "compile_seconds": round(compiled, 2),
            }
        )
    return result


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("names", nargs="*", choices=[[], *models.MODELS], metavar="NAME", help="default: all of them")
    names = parser.parse_args().names or sorted(models.MODELS)
    table: list[dict[str, Any]] = []
    for name in names:
        try:
            found = judge(name)
        except Exception as error:
            found = [{"network": name, "error": f"{type(error).__name__}: {str(error)[:300]}"}]
        for row in found:
            row.setdefault("batch", "")
        result_rows.write("imports", "python bench/imports.py", found, keys=("network", "batch"))
        table += found
        for row in found:
            print(row, flush=True)
    bad = [r for r in table if not r.get("relative_error", 1.0) <= 1e-4]
    sys.exit(f"{len(bad)} rows miss the target" if bad else 0)


if __name__ == "__main__":
    main()
