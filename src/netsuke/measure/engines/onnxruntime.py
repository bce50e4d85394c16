"""onnxruntime: float32, and its own INT8 (static quantization, QDQ, u8 activations, s8 weights per channel,
min-max).
"""

from __future__ import annotations

import logging
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from netsuke.measure.engines.base import Array, Engine, Session, Subject, Unavailable


def _int8_path(subject: Subject) -> Path:
    return subject.folder / "onnxruntime-int8.onnx"


class _Reader:
    """Calibration inputs one sample at a time, as the quantizer asks for them."""

    def __init__(self, path: Path) -> None:
        arrays = np.load(path)
        self._names = list(arrays.files)
        self._arrays = {name: arrays[name] for name in self._names}
        self._rows: Iterator[int] = iter(range(len(self._arrays[self._names[0]])))

    def get_next(self) -> dict[str, Array] | None:
        row = next(self._rows, None)
        return None if row is None else {name: self._arrays[name][row : row + 1] for name in self._names}


def _prepare(subject: Subject, precision: str) -> None:
    if precision != "int8" or _int8_path(subject).exists():
        return
    if subject.onnx is None:
        raise Unavailable("no float network given (--vs MODEL)")
    if subject.calibration is None:
        raise Unavailable("no calibration data for its own quantization (--calib DATA)")
    import onnx
    from onnxruntime.quantization import (
        CalibrationDataReader,
        CalibrationMethod,
        QuantFormat,
        QuantType,
        quantize_static,
    )
    from onnxruntime.quantization.shape_inference import quant_pre_process

    class Reader(_Reader, CalibrationDataReader):  # type: ignore[misc]
        pass

    logging.getLogger().setLevel(logging.ERROR)
    source, plain = subject.folder / "onnxruntime-source.onnx", subject.folder / "onnxruntime-plain.onnx"
    onnx.save(onnx.load(str(subject.onnx)), str(source))  # weights beside the file (torch's exporter) come into it
    quant_pre_process(str(source), str(plain), skip_symbolic_shape=True)
    quantize_static(
        str(plain),
        str(_int8_path(subject)),
        Reader(subject.calibration),
        quant_format=QuantFormat.QDQ,
        per_channel=True,
        activation_type=QuantType.QUInt8,
        weight_type=QuantType.QInt8,
        calibrate_method=CalibrationMethod.MinMax,
    )


def free_dimensions(path: Path, subject: Subject) -> dict[str, int]:
    """Sizes of the named dimensions of the inputs: an engine that knows them plans better."""
    import onnx

    graph = onnx.load(str(path), load_external_data=False).graph
    constants = {i.name for i in graph.initializer}
    found = {}
    ports = [i for i in graph.input if i.name not in constants]
    for port, array in zip(ports, subject.feeds.values(), strict=True):
        dims = port.type.tensor_type.shape.dim
        found.update({d.dim_param: size for d, size in zip(dims, array.shape, strict=True) if d.dim_param})
    return found


def _open(subject: Subject, precision: str, threads: int) -> Session:
    import onnxruntime

    path = _int8_path(subject) if precision == "int8" else subject.onnx
    if path is None:
        raise Unavailable("no float network given (--vs MODEL)")
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    options.log_severity_level = 3
    for dimension, size in free_dimensions(path, subject).items():
        options.add_free_dimension_override_by_name(dimension, size)
    loaded = onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    names = [i.name for i in loaded.get_inputs()]
    feeds: dict[str, Any] = dict(zip(names, subject.feeds.values(), strict=True))

    def run() -> list[Array]:
        return list(loaded.run(None, feeds))

    return Session(run, threads=loaded.get_session_options().intra_op_num_threads)


ENGINE = Engine(
    name="onnxruntime",
    label="onnxruntime",
    precisions=("f32", "int8"),
    packages=("onnxruntime",),
    install='pip install "netsuke[bench]"',
    open=_open,
    prepare=_prepare,
)
