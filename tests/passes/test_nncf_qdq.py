"""Files quantized by NNCF, when it is installed, run as integers and agree with what their Q and DQ nodes say."""

from __future__ import annotations

from collections import Counter

import numpy as np
import pytest
from graphs import build, compiled, expected, feeds_for

from netsuke.program.interpreter import run

pytest.importorskip("onnxruntime")
RNG = np.random.default_rng(23)


def w(*shape: int) -> np.ndarray:
    return (RNG.standard_normal(shape) / np.sqrt(np.prod(shape[1:]))).astype(np.float32)


@pytest.mark.slow
@pytest.mark.parametrize("preset", ["performance", "mixed"])
def test_small_network(preset: str) -> None:
    nncf = pytest.importorskip("nncf")
    body = (
        "a = Conv<pads=[1,1,1,1], strides=[2,2]>(x, w1, b1) r = Relu(a) d = Conv<group=8, pads=[1,1,1,1]>(r, w2, b2) "
        "c = Clip(d, zero, six) p = Conv(c, w3, b3) s = Add(p, r) g = GlobalAveragePool(s) f = Flatten(g) "
        "y = Gemm<transB=1>(f, w4, b4)"
    )
    constants = {
        "w1": w(8, 3, 3, 3),
        "b1": w(8),
        "w2": w(8, 1, 3, 3),
        "b2": w(8),
        "w3": w(8, 8, 1, 1),
        "b3": w(8),
        "w4": w(5, 8),
        "b4": w(5),
        "zero": np.float32(0),
        "six": np.float32(6),
    }
    model = build("float[1,3,16,16] x", body, "float[1,5] y", constants, opset=13)
    model.ir_version = 8
    items = [feeds_for(model, {}, seed) for seed in range(12)]
    quantized = nncf.quantize(model, nncf.Dataset(items), preset=nncf.QuantizationPreset(preset), subset_size=12)
    program = compiled(quantized)
    found = Counter(node.op for node in program.nodes)
    assert found["qconv"] == 3
    assert found["qlinear"] == 1
    assert not {"conv", "linear"} & set(found)
    for seed in range(100, 110):
        feeds = feeds_for(model, {}, seed)
        wanted = expected(quantized, feeds)[0]
        np.testing.assert_allclose(run(program, feeds)["y"], wanted, atol=0.03 * float(np.abs(wanted).max()))
