"""Which way of computing narrow layers is fastest, direct tiles, Winograd or bit planes: 3x3 layers of ResNet-18.

    python bench/planes.py [--threads 1] [--runs 7]

Weights and activations: W1A2, ternary with 1 bit, W1A4 and W2A2; every layer is read from a QONNX file as another tool
writes it. Rows say milliseconds by way and the way that tuning takes.
"""

from __future__ import annotations

import argparse
import os
import tempfile

import numpy as np
import onnx
import rows as result_rows

from netsuke.capture import capture
from netsuke.measure import tuning
from netsuke.passes import compile_program
from netsuke.program import Program

DOMAIN = "qonnx.custom_op.general"
KINDS = (("W1A2", 2, False), ("ternary A1", 1, True), ("W1A4", 4, False), ("W2A2", 2, True))
LAYERS = ((64, 56), (128, 28), (256, 14), (512, 7))


def layer(channels: int, size: int, bits: int, ternary: bool) -> Program:
    """One convolution with random levels."""
    rng = np.random.default_rng(0)
    w = rng.choice(np.asarray((-1, 0, 1) if ternary else (-1, 1), np.float32), (channels, channels, 3, 3))
    kind = "Quant<narrow=1>(w, t, z, wb)" if ternary else "BipolarQuant(w, t)"
    shape = f"float[1,{channels},{size},{size}]"
    made = onnx.parser.parse_model(
        f"""<ir_version: 8, opset_import: ["" : 16, "{DOMAIN}" : 1]> g ({shape} x) => ({shape} y) {{
        q = {DOMAIN}.Quant<signed=0>(x, s, z, b) v = {DOMAIN}.{kind} y = Conv<pads=[1,1,1,1]>(q, v) }}"""
    )
    values = {"w": w, "t": np.ones((channels, 1, 1, 1)), "s": 0.25, "z": 0, "b": bits} | ({"wb": 2} if ternary else {})
    for name, array in values.items():
        made.graph.initializer.append(onnx.numpy_helper.from_array(np.asarray(array, np.float32), name))
    return compile_program(capture(made))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--runs", type=int, default=7)
    options = parser.parse_args()
    table = []
    with tempfile.TemporaryDirectory() as folder:
        os.environ["XDG_CACHE_HOME"] = folder  # what is measured here on random weights is not kept
        for name, bits, ternary in KINDS:
            for channels, size in LAYERS:
                x = np.random.default_rng(0).uniform(0, 4, (1, channels, size, size)).astype(np.float32)
                program = layer(channels, size, bits, ternary)
                found = tuning.tune(program, {"x": x}, threads=options.threads, runs=options.runs)
                ((key, times),) = found.ms.items()
                way = found.choices().get(key, found.rule[key])
                row = {"format": name, "channels": channels, "size": size, "threads": options.threads, "way": way}
                table.append(row | {f"{w}_ms": round(ms, 4) for w, ms in sorted(times.items())})
                print(table[-1], flush=True)
    command = f"python bench/planes.py --threads {options.threads} --runs {options.runs}"
    print(result_rows.write("planes", command, table, keys=("format", "channels", "threads")))


if __name__ == "__main__":
    main()
