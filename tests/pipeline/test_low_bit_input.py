"""Bad input below eight bits, from the user's side: refused or handled, every problem named at once."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import torch
from onnx import TensorProto, helper, numpy_helper
from torch import nn

import netsuke
from netsuke.core.errors import NetsukeError, UsageError
from netsuke.data import Dataset
from netsuke.engine import load
from netsuke.methods.qat import prepare
from netsuke.nn.quantizer import QuantSpec
from netsuke.pipeline import compress, plan
from netsuke.program import interpreter

SHAPE = (1, 3, 8, 8)


def network() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(3, 8, 3, padding=1), nn.ReLU(), nn.Conv2d(8, 8, 3, padding=1), nn.ReLU(),
        nn.Conv2d(8, 8, 3, padding=1), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(8, 5),
    ).eval()  # fmt: skip


def samples(count: int = 32) -> np.ndarray:
    return np.random.default_rng(0).random((count, *SHAPE[1:]), np.float32)


def test_impossible_bits_groups_and_channels_come_together() -> None:
    with pytest.raises(UsageError) as caught:
        compress(network(), recipe=["quantize/weight_only:bits=9,group=48,compute=f16"], shape=SHAPE, measure=False)
    assert len(caught.value.problems) == 3
    assert all(word in str(caught.value) for word in ("bits", "group", "compute"))
    with pytest.raises(UsageError) as caught:
        QuantSpec(role="weight", bits=9, granularity="group", group=0, signed=True, affine=True)
    assert len(caught.value.problems) >= 3


def test_a_plan_that_contradicts_itself_is_refused_with_every_contradiction() -> None:
    made = plan(network(), calib=samples(), recipe="cpu-w4a4", effort="fast", shape=SHAPE)
    rows = [row.name for row in made.rows if row.weight_bits]
    made[rows[1]].weight_bits = 1
    made[rows[2]].activation_bits = 9
    made[rows[2]].granularity = "pixel"
    with pytest.raises(UsageError) as caught:
        compress(network(), made, calib=samples(), shape=SHAPE, measure=False)
    assert {rows[1], rows[2]} <= {p.where.split()[0].rstrip(":") for p in caught.value.problems}
    assert len(caught.value.problems) == 3


def test_labels_are_asked_for_where_they_are_needed() -> None:
    with pytest.raises(NetsukeError, match="label"):
        netsuke.train(network(), Dataset.from_arrays(samples()), epochs=1, progress=False)
    small = compress(
        network(), calib=samples(), evaluate=samples(8), recipe="cpu-w4a4", shape=SHAPE, measure=False,
        budget=netsuke.Budget(drop="top1:1%"),
    )  # fmt: skip
    assert any("data with labels" in str(line) for line in small.missed)


def qdq(scale: float) -> onnx.ModelProto:
    """A linear layer whose int8 weights stand behind a scale."""
    w = np.arange(-16, 16, dtype=np.int8).reshape(4, 8)
    nodes = [
        helper.make_node("DequantizeLinear", ["w", "s"], ["wf"], name="weights"),
        helper.make_node("Gemm", ["x", "wf"], ["y"], name="head", transB=1),
    ]
    constants = [numpy_helper.from_array(w, "w"), numpy_helper.from_array(np.float32(scale), "s")]
    port = helper.make_tensor_value_info
    graph = helper.make_graph(
        nodes, "g", [port("x", TensorProto.FLOAT, ["N", 8])], [port("y", TensorProto.FLOAT, ["N", 4])], constants
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)])


@pytest.mark.parametrize("scale", [np.nan, np.inf, -np.inf])
def test_scales_that_are_no_numbers_are_refused_by_name(scale: float, tmp_path: Path) -> None:
    path = tmp_path / "bad.onnx"
    onnx.save(qdq(scale), path)
    with pytest.raises(NetsukeError, match=r"weights|head|'s'"):
        compress(str(path), calib=np.ones((4, 8), np.float32), measure=False)


@pytest.mark.parametrize("scale", [np.nan, np.inf])
@pytest.mark.parametrize("role", ["weight", "activation"])
def test_a_training_that_lost_a_scale_exports_nothing(scale: float, role: str) -> None:
    x = torch.from_numpy(samples(8))
    made = prepare(network(), shape=SHAPE, method="qat/lsq", weight_bits=4, activation_bits=4, calib=x)
    quantizer = next(q for q in made.quantizers().values() if q.spec.role == role)
    with torch.no_grad():
        quantizer.scale.fill_(scale)
    with pytest.raises(UsageError, match="scale is not"):
        made.eval().export()


@pytest.mark.parametrize("step", ["bias_correction", "gptq", "adaround", "brecq", "adaquant"])
@pytest.mark.parametrize("bits", [4, 2])
def test_dead_channels_stay_dead_and_harm_nobody(step: str, bits: int) -> None:
    net: Any = network()
    with torch.no_grad():
        net[2].weight[3], net[2].bias[3] = 0.0, 0.0  # weights of zeros
        net[2].weight[5], net[2].bias[5] = -1.0, -9.0  # never above zero behind the ReLU
        net[4].weight[:, 3] = 1e-42  # and weights that read nothing, below the normal numbers
    few = "" if step in ("bias_correction", "gptq") else ":iterations=5"
    recipe = [f"quantize/uniform:weight_bits={bits},activation_bits=4", f"quantize/{step}{few}"]
    small = compress(net, recipe=recipe, calib=samples(), shape=SHAPE, measure=False, effort="fast")
    x, name = samples(8), small.program.inputs[0].name
    taps = [n for n, v in small.program.values.items() if v.dtype == "u8"]
    ours = load(small.program, threads=1).run({name: x}, taps=taps)
    wanted = interpreter.run(small.program, {name: x}, taps=taps)
    assert all(np.array_equal(ours[n], wanted[n]) for n in taps)
    assert np.isfinite(ours[small.program.outputs[0].name]).all()
    for key, array in small.program.constants.items():
        assert array.dtype.kind != "f" or np.isfinite(array).all(), key
