"""Binary MobileNet and DenseNet: parameters, and one-bit layers everywhere between stem and head once compiled."""

import itertools

import numpy as np
import pytest

from netsuke import engine, models
from netsuke.capture import capture
from netsuke.passes import compile_program
from netsuke.program.interpreter import run

torch = pytest.importorskip("torch")


def test_reactnet_a_has_the_published_shape():
    """29.3 M parameters: 25.1 M one-bit ones in 3x3 layers, 3.1 M in 1x1 layers, and a classifier of 1.0 M."""
    net = models.build("reactnet_a")
    widths = [32, 64, 128, 128, 256, 256, *[512] * 6, 1024, 1024]
    wanted = sum(9 * i * i + i * o for i, o in itertools.pairwise(widths))
    assert sum(m.weight.numel() for m in net.modules() if type(m).__name__ == "BinaryConv2d") == wanted
    assert 29.2e6 < sum(p.numel() for p in net.parameters()) < 29.5e6


@pytest.mark.parametrize(("name", "layers"), [("reactnet_small", 8), ("binary_densenet_small", 4)])
def test_small_ones_run_on_bits(name, layers):
    net = models.build(name)
    program = compile_program(capture(net, shape=(1, 3, 16, 16)))
    assert sum(n.op == "bconv" for n in program.nodes) == layers
    x = np.random.default_rng(0).standard_normal((2, 3, 16, 16)).astype(np.float32)
    want = run(program, {program.inputs[0].name: x})
    got = engine.load(program, threads=2).run({program.inputs[0].name: x})
    for key, value in want.items():
        np.testing.assert_allclose(got[key], value, rtol=1e-4, atol=1e-4)
    with torch.no_grad():
        np.testing.assert_allclose(got[key], net(torch.from_numpy(x)).numpy(), rtol=1e-3, atol=1e-3)
