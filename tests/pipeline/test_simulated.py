"""Formats without a kernel are refused by name before any work, unless they are allowed."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from netsuke.cli import common
from netsuke.cli.main import app
from netsuke.core.errors import UnsupportedError
from netsuke.pipeline import compress

K, N, BLOCK = 64, 16, 16  # kernels take groups of whole blocks of 32


@pytest.fixture
def odd(tmp_path: Path) -> Path:
    """A matrix in groups of 16, as another tool may write it."""
    rng = np.random.default_rng(0)
    tensors = [
        numpy_helper.from_array(rng.integers(-7, 8, (K, N)).astype(np.int8), "q"),
        numpy_helper.from_array((rng.random((K // BLOCK, N)) * 0.1).astype(np.float32), "s"),
    ]
    nodes = [
        helper.make_node("DequantizeLinear", ["q", "s"], ["w"], "dq", axis=0, block_size=BLOCK),
        helper.make_node("MatMul", ["x", "w"], ["y"], "mm"),
    ]
    x, y = (helper.make_tensor_value_info(n, TensorProto.FLOAT, ["B", d]) for n, d in (("x", K), ("y", N)))
    model = helper.make_model(
        helper.make_graph(nodes, "odd", [x], [y], tensors), opset_imports=[helper.make_opsetid("", 21)], ir_version=10
    )
    onnx.save(model, tmp_path / "odd.onnx")
    return tmp_path / "odd.onnx"


def test_a_layer_without_a_kernel_is_refused_by_name(odd: Path) -> None:
    with pytest.raises(UnsupportedError, match="no kernel runs") as caught:
        compress(odd, measure=False)
    assert "allow-simulated" in str(caught.value)
    small = compress(odd, measure=False, allow_simulated=True)
    assert small.layers.counts()["simulated"] == 1


def test_the_command_line_has_the_switch(odd: Path, tmp_path: Path) -> None:
    out = tmp_path / "odd.nsk"
    assert common.run(app, ["compress", str(odd), "-o", str(out)]) != 0
    assert not out.exists()
    assert common.run(app, ["compress", str(odd), "-o", str(out), "--allow-simulated"]) == 0
    assert out.exists()
