"""Damaged ONNX files: whatever is done to the bytes, the outcome is a verified program or an error with a name.

    python -m tests.fuzz.onnx_mutants --mutations 10000 [--start SEED]

Prints every mutant that raises something else, or that takes longer than 5 s; exit code 1 when there is one.
"""

from __future__ import annotations

import argparse
import sys
import time
import traceback

import numpy as np
import onnx

from netsuke.capture import capture
from netsuke.capture.onnx_file import parse_onnx
from netsuke.core.errors import NetsukeError
from netsuke.passes import compile_program
from netsuke.program import verify

SLOW = 5.0
RNG = np.random.default_rng(0)


def _model(text: str, opset: int = 17, **constants: object) -> bytes:
    head = f'<ir_version: 8, opset_import: ["" : {opset}, "com.microsoft" : 1]>'
    found = onnx.parser.parse_model(f"{head} g {text}")
    for name, array in constants.items():
        found.graph.initializer.append(onnx.numpy_helper.from_array(np.asarray(array), name))
    return bytes(found.SerializeToString())


def _normal(*shape: int) -> np.ndarray:
    return RNG.standard_normal(shape).astype(np.float32)


def models() -> list[bytes]:
    """Small models: a float network, one with quantizers, one with operators on codes, one with shape arithmetic."""
    floating = _model(
        "(float[N,3,8,8] x) => (float[N,5] y) { a = Conv<pads=[1,1,1,1], strides=[2,2]>(x, w, b) r = Relu(a) "
        "p = MaxPool<kernel_shape=[2,2]>(r) g = GlobalAveragePool(p) f = Flatten(g) y = Gemm<transB=1>(f, m, c) }",
        w=_normal(4, 3, 3, 3), b=_normal(4), m=_normal(5, 4), c=_normal(5),
    )  # fmt: skip
    codes = RNG.integers(-127, 128, (4, 3, 1, 1)).astype(np.int8)
    grid = {"s": np.float32(0.05), "z": np.uint8(120), "t": np.float32(0.01), "o": np.int8(0)}
    pairs = _model(
        "(float[N,3,8,8] x) => (float[N,4,8,8] y) { q = QuantizeLinear(x, s, z) d = DequantizeLinear(q, s, z) "
        "k = DequantizeLinear(w, t, o) a = Conv(d, k) r = QuantizeLinear(a, s, z) y = DequantizeLinear(r, s, z) }",
        w=codes, **grid,
    )  # fmt: skip
    operators = _model(
        "(float[N,3,8,8] x) => (float[N,4,8,8] y) { q = QuantizeLinear(x, s, z) "
        "a = QLinearConv(q, s, z, w, t, o, s, z) b = com.microsoft.QLinearAdd(a, s, z, a, s, z, s, z) "
        "y = DequantizeLinear(b, s, z) }",
        w=codes, **grid,
    )  # fmt: skip
    shapes = _model(
        "(float[N,6,4] x) => (float[A,B,C] y) { h = Shape(x) n = Gather(h, zero) u = Unsqueeze(n, axes) "
        "t = Concat<axis=0>(u, rest) r = Reshape(x, t) p = Transpose<perm=[0,2,1]>(r) m = MatMul(p, r) "
        "y = Softmax<axis=-1>(m) }",
        zero=np.int64(0), axes=np.array([0]), rest=np.array([3, 8]),
    )  # fmt: skip
    return [floating, pairs, operators, shapes]


def mutate(data: bytes, rng: np.random.Generator) -> bytes:
    """One to five bits flipped, bytes set, stretches cut or repeated."""
    bad = bytearray(data)
    for _ in range(int(rng.integers(1, 6))):
        place, action = int(rng.integers(0, max(len(bad), 1))), int(rng.integers(0, 5))
        if action <= 1 and bad:
            bad[place] ^= 1 << int(rng.integers(0, 8))
        elif action == 2 and bad:
            bad[place] = int(rng.choice([0, 1, 127, 128, 255]))
        elif action == 3:
            del bad[place : place + int(rng.integers(1, 20))]
        else:
            bad[place:place] = bad[place : place + int(rng.integers(1, 20))]
    return bytes(bad)


def outcome(data: bytes) -> str:
    """ "program", "refused", or what went wrong."""
    begin = time.perf_counter()
    try:
        verify(compile_program(capture(parse_onnx(data))))
        found = "program"
    except NetsukeError:
        found = "refused"
    except Exception as error:
        return "".join(traceback.format_exception(error)[-3:])
    spent = time.perf_counter() - begin
    return found if spent < SLOW else f"took {spent:.1f} s"


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.fuzz.onnx_mutants", description=__doc__)
    parser.add_argument("--mutations", type=int, default=10_000)
    parser.add_argument("--start", type=int, default=0)
    options = parser.parse_args()
    counts = {"program": 0, "refused": 0, "wrong": 0}
    base, begin = models(), time.perf_counter()
    for seed in range(options.start, options.start + options.mutations):
        found = outcome(mutate(base[seed % len(base)], np.random.default_rng(seed)))
        counts[found if found in counts else "wrong"] += 1
        if found not in counts:
            print(f"seed {seed}: {found}", flush=True)
    print(f"{options.mutations} mutants: {counts}, {time.perf_counter() - begin:.0f} s")
    return 1 if counts["wrong"] else 0


if __name__ == "__main__":
    sys.exit(main())
