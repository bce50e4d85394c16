"""OpenVINO: float32, bfloat16 where the CPU computes it, and INT8 as NNCF makes it from the same ONNX and the same
calibration.
"""

from __future__ import annotations

import contextlib
import io
import logging
import os
from pathlib import Path
from typing import Any

import numpy as np

from netsuke.measure.engines.base import Array, Engine, Session, Subject, Unavailable


def _int8_path(subject: Subject) -> Path:
    return subject.folder / "openvino-int8.xml"


def _prepare(subject: Subject, precision: str) -> None:
    if precision != "int8" or _int8_path(subject).exists():
        return
    if subject.onnx is None:
        raise Unavailable("no float network given (--vs MODEL)")
    if subject.calibration is None:
        raise Unavailable("no calibration data for its own quantization (--calib DATA)")
    logging.getLogger("nncf").setLevel(logging.ERROR)
    os.environ.setdefault("NNCF_CI", "1")  # NNCF sends usage data home unless this is set before it is imported
    with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
        import nncf
        import openvino

        model = openvino.Core().read_model(str(subject.onnx))
        arrays = np.load(subject.calibration)
        held = [arrays[name] for name in arrays.files]
        count = len(held[0])
        _fix_shapes(model, [a[:1] for a in held])

        def sample(row: int) -> Any:
            values = [a[row : row + 1] for a in held]
            return values[0] if len(values) == 1 else values

        quantized = nncf.quantize(model, nncf.Dataset(range(count), sample), subset_size=count)
        openvino.save_model(quantized, str(_int8_path(subject)), compress_to_fp16=False)


def _fix_shapes(model: Any, feeds: list[Array]) -> None:
    """Tell OpenVINO the sizes: with free dimensions its CPU plug-in is several times slower, which would flatter us."""
    if model.is_dynamic() or any(tuple(p.shape) != f.shape for p, f in zip(model.inputs, feeds, strict=True)):
        model.reshape({p.any_name: list(f.shape) for p, f in zip(model.inputs, feeds, strict=True)})


def _open(subject: Subject, precision: str, threads: int) -> Session:
    import openvino

    path = _int8_path(subject) if precision == "int8" else subject.onnx
    if path is None:
        raise Unavailable("no float network given (--vs MODEL)")
    core = openvino.Core()
    if precision == "bf16" and "BF16" not in core.get_property("CPU", "OPTIMIZATION_CAPABILITIES"):
        raise Unavailable("this CPU computes no bfloat16 in OpenVINO")
    settings: dict[str, Any] = {
        "INFERENCE_NUM_THREADS": threads,
        "NUM_STREAMS": 1,
        "PERFORMANCE_HINT": "LATENCY",
        "INFERENCE_PRECISION_HINT": "bf16" if precision == "bf16" else "f32",
    }
    inputs = [np.ascontiguousarray(a) for a in subject.feeds.values()]
    model = core.read_model(str(path))
    _fix_shapes(model, inputs)
    compiled = core.compile_model(model, "CPU", settings)
    request = compiled.create_infer_request()

    def run() -> list[Array]:
        result = request.infer(inputs, share_inputs=True, share_outputs=False)
        return [result[port] for port in compiled.outputs]

    return Session(run, threads=int(compiled.get_property("INFERENCE_NUM_THREADS")))


ENGINE = Engine(
    name="openvino",
    label="OpenVINO",
    precisions=("f32", "bf16", "int8"),
    packages=("openvino", "nncf"),
    install='pip install "netsuke[bench]"',
    open=_open,
    prepare=_prepare,
)
