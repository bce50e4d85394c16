"""The stream between one-bit layers is INT8 by plan: stem, shortcuts and head too, one pass over memory a layer."""

import numpy as np
import pytest
import torch
from torch import nn

from netsuke import engine
from netsuke.core.plan import KEEP
from netsuke.data import Dataset
from netsuke.models.binary import BinaryConv2d, BiRealLayer
from netsuke.pipeline import compress
from netsuke.pipeline.timing import why_not_faster
from netsuke.program.interpreter import run


class Net(nn.Module):
    """A Bi-Real stage with a downsampling shortcut, then a ReActNet-like block: shifts, PReLU, a residual."""

    def __init__(self):
        super().__init__()
        self.stem, self.bn = nn.Conv2d(3, 30, 3, padding=1), nn.BatchNorm2d(30)
        self.layers = nn.Sequential(BiRealLayer(30, 30, 1), BiRealLayer(30, 70, 2))
        self.shifts = nn.ParameterList([nn.Parameter(0.2 * torch.randn(1, 70, 1, 1)) for _ in range(3)])
        self.conv, self.bn2, self.act = BinaryConv2d(70, 70), nn.BatchNorm2d(70), nn.PReLU(70)
        self.last, self.bn3 = BinaryConv2d(70, 70), nn.BatchNorm2d(70)
        self.fc = nn.Linear(70, 10)

    def forward(self, x):
        x = self.layers(self.bn(self.stem(x)))
        y = self.bn2(self.conv(x + self.shifts[0])) + x
        y = self.act(y + self.shifts[1]) + self.shifts[2]
        return self.fc((self.bn3(self.last(y)) + y).mean((2, 3)))


@pytest.fixture(scope="module")
def network():
    torch.manual_seed(0)
    net = Net()
    with torch.no_grad():
        net.train()
        net(torch.randn(16, 3, 12, 12))
        net.act.weight.uniform_(-0.2, 0.5)
    return net.eval()


@pytest.fixture(scope="module")
def data():
    return Dataset.from_arrays(np.random.default_rng(0).standard_normal((24, 3, 12, 12)).astype(np.float32))


def made(network, data, plan=None):
    return compress(network, plan, calib=data, shape=(1, 3, 12, 12), effort="fast", measure=False)


def ops(program):
    return [n.op for n in program.nodes if n.op not in ("transpose", "reshape")]


def test_everything_between_one_bit_layers_is_codes(network, data):
    small = made(network, data)
    layers = [n for n in small.program.nodes if n.op == "bconv"]
    assert [n.attrs["out"] for n in layers] == ["u8"] * 4
    # Residual, constants and PReLU of every layer are in it, and so are the signs that the next one reads.
    assert not {"conv", "binary", "qadd", "prelu", "lut", "dequantize", "where", "avgpool"} & set(ops(small.program))
    assert ops(small.program).count("sign_pack") == 1
    assert [len(n.outputs) for n in layers] == [2, 2, 2, 1]
    assert all(row.status == "packed" and row.bits == 8 for row in small.plan.rows if row.kernel == "bconv")


def test_the_engine_computes_the_reference_bit_for_bit(network, data):
    program = made(network, data).program
    x = next(data.batches(4))[0]
    want = run(program, {program.inputs[0].name: x})
    for threads in (1, 2):
        got = engine.load(program, threads=threads).run({program.inputs[0].name: x})
        for name, value in want.items():
            assert got[name].tobytes() == value.tobytes()


def test_a_plan_keeps_the_stream_in_float(network, data):
    plan = made(network, data).plan
    for row in plan.rows:
        if row.kernel == "bconv":
            row.method = KEEP
    program = made(network, data, plan).program
    assert {n.attrs["out"] for n in program.nodes if n.op == "bconv"} == {"f32"}


def test_codes_follow_the_float_stream(network, data):
    """The sum that leaves a layer, residual and PReLU included, is the float one within half a step of its codes, as
    long as the same signs went in."""
    small = made(network, data)
    x = next(data.batches(8))[0]
    got = next(iter(run(small.program, {small.program.inputs[0].name: x}).values()))
    want = network(torch.from_numpy(x)).detach().numpy()
    assert np.corrcoef(got.ravel(), want.ravel())[0, 1] > 0.8  # signs near zero turn, answers stay


def test_float_layers_that_dominate_are_named_with_their_milliseconds():
    rows = [
        {"name": "shortcut", "op": "conv", "kernel": "conv", "ms": 3.0, "macs": 10},
        {"name": "stem", "op": "conv", "kernel": "conv", "ms": 1.0, "macs": 10},
        {"name": "binary", "op": "bconv", "kernel": "bconv", "ms": 2.0, "macs": 10},
    ]
    said = why_not_faster(rows, 10.0, "avx2")
    assert "67%" in said
    assert "4 of 6 ms" in said
    assert "shortcut (3 ms)" in said
    assert "float" not in why_not_faster(rows[2:], 10.0, "avx2")  # one-bit layers are not float
