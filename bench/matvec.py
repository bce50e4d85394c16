"""Matrix times vector (and a few vectors) with weights of few bits: wlinear beside onnxruntime and OpenVINO, in turns.

    python bench/matvec.py [--n 4096 --k 4096] [--rows 1,128] [--groups 32,128] [--seconds 1] [--only PATTERN]

One process, one thread, every engine on the same weights; timings alternate, so that what disturbs the machine disturbs
all alike. Rivals: onnxruntime's MatMulNBits with 8-bit activations (accuracy_level 4) and with float ones (1),
OpenVINO with u4 weights and dynamically quantized activations (group size as the weights'), and float32 of both.
`limit_ms` is the weights (codes and scales) over the read bandwidth of one core (`netsuke doctor`; weights that fit the
last-level cache are read from there on every run, so its rate is the limit): no code that reads them all can be faster.
"""

from __future__ import annotations

import argparse
import itertools
import re
import sys
from collections.abc import Callable
from typing import Any

import numpy as np
import rows as result_rows

from netsuke.engine import load
from netsuke.formats import quantize_groups
from netsuke.measure.engines.base import Session
from netsuke.measure.interleave import interleave
from netsuke.program import Node, Port, Program

Array = np.ndarray[Any, Any]


def ours(w: Array, scale: Array, group: int, compute: str, x: Array) -> tuple[Session, int]:
    """Session and bytes of the weights in the file."""
    attrs: dict[str, Any] = {"group": group, "compute": compute}
    node = Node("wlinear", "l", ["x", "w", "scale", "", ""], ["y"], attrs)
    ports = [Port("x", "f32", ("M", w.shape[1]))], [Port("y", "f32", ("M", w.shape[0]))]
    engine = load(Program("matvec", *ports, [node], {"w": w, "scale": scale}), threads=1)
    return Session(lambda: [engine.run({"x": x})["y"]], 1, note=engine.kernels()[0]["kernel"]), engine.packed_bytes


def onnxruntime_nbits(w: Array, scale: Array, group: int, bits: int, level: int, x: Array) -> Session:
    """com.microsoft MatMulNBits with the same codes; level 4 quantizes activations to 8 bits, 1 keeps float32."""
    import onnxruntime as ort
    from onnx import TensorProto, helper, numpy_helper

    n, k = w.shape
    blocks = k // group
    codes = (w.astype(np.int16) + 2 ** (bits - 1)).astype(np.uint8).reshape(n, blocks, group)
    per = 8 // bits
    packed = np.zeros((n, blocks, group // per), np.uint8)
    for i in range(per):
        packed |= codes[..., i::per] << np.uint8(i * bits)
    attrs = {"K": k, "N": n, "bits": bits, "block_size": group, "accuracy_level": level}
    node = helper.make_node("MatMulNBits", ["x", "w", "s"], ["y"], domain="com.microsoft", **attrs)
    made = helper.make_graph(
        [node],
        "g",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["M", k])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["M", n])],
        [numpy_helper.from_array(packed, "w"), numpy_helper.from_array(scale.reshape(-1), "s")],
    )
    opsets = [helper.make_opsetid("", 17), helper.make_opsetid("com.microsoft", 1)]
    model = helper.make_model(made, opset_imports=opsets, ir_version=9)
    options = ort.SessionOptions()
    options.intra_op_num_threads = 1
    session = ort.InferenceSession(model.SerializeToString(), options, ["CPUExecutionProvider"])
    return Session(lambda: session.run(None, {"x": x}), 1)


def openvino_low(w: Array, scale: Array, group: int, bits: int, x: Array, *, dynamic: bool) -> Session:
    """Unsigned codes behind Convert, Subtract, Multiply, Reshape: the pattern that OpenVINO keeps compressed."""
    import openvino as ov
    from openvino import opset13 as op

    n, k = w.shape
    kind = {8: ov.Type.u8, 4: ov.Type.u4, 2: ov.Type.u2}[bits]
    codes = (w.astype(np.int16) + 2 ** (bits - 1)).astype(np.uint8)
    per = 8 // bits
    packed = np.zeros(codes.size // per, np.uint8)
    flat = codes.reshape(-1)
    for i in range(per):
        packed |= flat[i::per] << np.uint8(i * bits)
    tensor = ov.Tensor(packed, ov.Shape([n, k // group, group]), kind)
    zero = op.convert(op.constant(np.full((n, k // group, 1), 2 ** (bits - 1), np.uint8)), "f32")
    plain = op.multiply(op.subtract(op.convert(op.constant(tensor), "f32"), zero), op.constant(scale[..., None]))
    weights = op.reshape(plain, op.constant(np.array([n, k])), special_zero=False)
    entry = op.parameter([-1, k], np.float32)
    model = ov.Model([op.matmul(entry, weights, False, True)], [entry])
    config = {"INFERENCE_NUM_THREADS": 1, "NUM_STREAMS": 1, "PERFORMANCE_HINT": "LATENCY"}
    config["DYNAMIC_QUANTIZATION_GROUP_SIZE"] = group if dynamic else 0
    request = ov.Core().compile_model(model, "CPU", config).create_infer_request()

    # The tensor reads this array's memory: where it was freed, sessions answered nonsense now and then.
    def run(_kept: Array = packed) -> list[Any]:
        return [request.infer([x])[0]]

    return Session(run, 1)


def openvino_float(w: Array, x: Array) -> Session:
    import openvino as ov
    from openvino import opset13 as op

    entry = op.parameter([-1, w.shape[1]], np.float32)
    model = ov.Model([op.matmul(entry, op.constant(w), False, True)], [entry])
    config = {"INFERENCE_NUM_THREADS": 1, "NUM_STREAMS": 1, "INFERENCE_PRECISION_HINT": "f32"}
    request = ov.Core().compile_model(model, "CPU", config).create_infer_request()
    return Session(lambda: [request.infer([x])[0]], 1)


def sessions(
    weights: Array, group: int, x: Array, wanted: Callable[[str], bool]
) -> tuple[dict[str, Session], dict[str, int], list[str]]:
    """Sessions by name, bytes of our packed weights by name, and what could not be made."""
    found: dict[str, Session] = {}
    sizes: dict[str, int] = {}
    missing: list[str] = []
    makers: dict[str, Any] = {}
    for bits in (4, 3, 2, 8):
        w, scale, _ = quantize_groups(weights, bits, group)
        for compute in ("s8", "f32", "bf16") if bits == 4 else ("s8", "f32"):
            name = f"netsuke w{bits} {'a8' if compute == 's8' else compute}"
            if wanted(name):
                found[name], sizes[name] = ours(w, scale, group, compute, x)
        if bits != 3:
            makers[f"onnxruntime w{bits} a8"] = lambda w=w, s=scale, b=bits: onnxruntime_nbits(w, s, group, b, 4, x)
            makers[f"openvino w{bits} a8"] = lambda w=w, s=scale, b=bits: openvino_low(w, s, group, b, x, dynamic=True)
            makers[f"onnxruntime w{bits} f32"] = lambda w=w, s=scale, b=bits: onnxruntime_nbits(w, s, group, b, 1, x)
            makers[f"openvino w{bits} f32"] = lambda w=w, s=scale, b=bits: openvino_low(
                w, s, group, b, x, dynamic=False
            )
    makers["openvino float"] = lambda: openvino_float(weights, x)
    for name, make in makers.items():
        if not wanted(name):
            continue
        try:
            session = make()
            session.run()
            found[name] = session
        except Exception as error:
            missing.append(f"{name}: {str(error).splitlines()[0][:160]}")
    return found, sizes, missing


def agree(found: dict[str, Session], weights: Array, x: Array) -> tuple[dict[str, float], list[str]]:
    """Relative error of each result against the float product, and a sentence on every engine that is no rival: its
    result has another shape, or is no nearer to the product than zeros are."""
    exact = x @ weights.T
    size = float(np.linalg.norm(exact))
    errors: dict[str, float] = {}
    wrong: list[str] = []
    for name, session in found.items():
        result = np.asarray(session.run()[0])
        if result.shape != exact.shape:
            wrong.append(f"{name}: M = {len(x)}: answers {list(result.shape)} where {list(exact.shape)} is asked for")
            continue
        error = float(np.linalg.norm(result - exact)) / size
        if error < 1.0:
            errors[name] = error
        else:  # NaN too
            wrong.append(f"{name}: M = {len(x)}: its error is {error:.2f} of the product; that of zeros is 1")
    return errors, wrong


def table(
    n: int, k: int, rows: int, group: int, seconds: float, wanted: Callable[[str], bool]
) -> tuple[list[dict[str, Any]], list[str]]:
    rng = np.random.default_rng(0)
    weights = (rng.normal(size=(n, k)) / np.sqrt(k)).astype(np.float32)
    x = rng.normal(size=(rows, k)).astype(np.float32)
    found, sizes, missing = sessions(weights, group, x, wanted)
    errors, wrong = agree(found, weights, x)
    missing += wrong
    times = interleave({name: session for name, session in found.items() if name in errors}, seconds)
    limit = _read_gbs(max(sizes.values(), default=0))
    out = []
    for name, timing in times.items():
        ms = float(np.median([np.median(r) for r in timing.rounds_ms])) if timing.rounds_ms else float("nan")
        row: dict[str, Any] = {"n": n, "k": k, "rows": rows, "group": group, "engine": name, "ms": round(ms, 4)}
        row |= {"gmacs": round(rows * n * k / ms / 1e6, 1), "error": round(errors[name], 4)}
        if name in sizes and rows == 1:
            least = sizes[name] / limit / 1e6
            row |= {"limit_ms": round(least, 4), "share_of_limit": round(least / ms, 3)}
        row["kernel"] = found[name].note
        out.append(row)
    for own in (r for r in out if "netsuke" in r["engine"]):
        # Any rival counts that computes the product about as exactly; one that computes something else does not. Layers
        # whose activations stay float are compared with those whose do.
        kinds = ("a8", "f32", "float") if own["engine"].endswith("a8") else ("f32", "float")
        rivals = [r for r in out if "netsuke" not in r["engine"] and r["engine"].endswith(kinds)]
        best = min((r for r in rivals if r["error"] < 1.1 * own["error"]), key=lambda r: r["ms"], default=None)
        if best:
            times_as_fast = f"{best['ms'] / own['ms']:.2f}x of {best['engine']}"
            print(f"  M = {rows}, group {group}, {own['engine']}: {times_as_fast}", flush=True)
    return out, missing


def _read_gbs(_size: int) -> float:
    """GB/s that one core reads from the last-level cache, which holds these weights between runs."""
    from netsuke.measure.machine import limits

    return float(limits().l3_gbs)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--n", type=int, default=4096)
    parser.add_argument("--k", type=int, default=4096)
    parser.add_argument("--rows", default="1,128")
    parser.add_argument("--groups", default="32,128")
    parser.add_argument("--seconds", type=float, default=0.5)
    parser.add_argument(
        "--only", default="", help="a pattern; engines whose name has none are left out, e.g. 'w[24] f32'"
    )
    options = parser.parse_args()
    found: list[dict[str, Any]] = []
    missing: list[str] = []

    def wanted(name: str) -> bool:
        return re.search(options.only, name) is not None

    for rows, group in itertools.product(map(int, options.rows.split(",")), map(int, options.groups.split(","))):
        part, absent = table(options.n, options.k, rows, group, options.seconds, wanted)
        for row in part:
            print(row, flush=True)
        found += part
        missing += absent
    for line in dict.fromkeys(missing):
        print("not measured:", line)
    notes = [f"not measured: {line}" for line in dict.fromkeys(missing)]
    keys = ("n", "k", "rows", "group", "engine")
    print(result_rows.write("matvec", f"python {sys.argv[0]}", found, notes, keys=keys))


if __name__ == "__main__":
    main()
