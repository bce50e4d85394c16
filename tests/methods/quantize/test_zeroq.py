"""Distilled inputs: they meet the stored moments, calibrate without data, and refuse what they cannot serve."""

import numpy as np
import pytest
import torch

from netsuke.capture import capture
from netsuke.core.errors import UsageError
from netsuke.methods.quantize import ptq, zeroq
from netsuke.methods.quantize._distill import distill
from netsuke.methods.quantize._graph import bn_statistics
from netsuke.models import build

from .graphs import resnet
from .ort_runner import runner

torch.set_num_threads(1)
STEPS = ["quantize/zeroq:iterations=20,samples=8", "quantize/uniform:weight_bits=4"]


@pytest.fixture(scope="module")
def digits():
    return capture(build("digits_cnn"), shape=(1, 1, 8, 8))


def test_capture_keeps_the_statistics_of_normalizations_the_exporter_folds(digits):
    network = build("digits_cnn")
    found = {node.name: bn_statistics(node) for node in zeroq.normalized(digits)}
    assert list(found) == ["stem.0", "block1.conv1", "block1.conv2", "block2.conv1", "block2.conv2"]
    norm = network.block2.bn1
    np.testing.assert_allclose(found["block2.conv1"][0], norm.bias.detach().numpy(), rtol=1e-6)
    np.testing.assert_allclose(found["block2.conv1"][1], norm.weight.detach().abs().numpy(), rtol=1e-6)


def test_the_loss_falls_and_the_moments_are_met(digits):
    found = distill(digits, (16, 1, 8, 8), 120, 0.2, 0)
    assert found.inputs.shape == (16, 1, 8, 8)
    assert found.inputs.dtype == np.float32
    assert found.after < found.before / 5
    names = {node.outputs[0].name: bn_statistics(node) for node in zeroq.normalized(digits)}
    values = next(iter(runner(digits, [{digits.graph.inputs[0].name: found.inputs}], list(names))))
    noise = np.random.default_rng(0).standard_normal(found.inputs.shape).astype(np.float32)
    other = next(iter(runner(digits, [{digits.graph.inputs[0].name: noise}], list(names))))

    def miss(outputs):
        return [np.abs(outputs[n].std(axis=(0, 2, 3)) - s[1]).mean() / s[1].mean() for n, s in names.items()]

    assert np.mean(miss(values)) < 0.5 * np.mean(miss(other))


def test_a_run_without_data_uses_them_and_says_so(digits):
    plan = ptq.make_plan(digits, recipe=STEPS, runner=runner, effort="fast")
    assert plan.data["source"] == "data-free (quantize/zeroq)"
    assert any("quantize/zeroq" in note for note in plan.notes)
    first, second = (ptq.quantize(digits, plan=plan, runner=runner) for _ in range(2))
    for name, value in first.graph.initializers.items():
        np.testing.assert_array_equal(value.const_value.numpy(), second.graph.initializers[name].const_value.numpy())


def test_networks_without_normalization_are_refused():
    with pytest.raises(UsageError, match="no batch normalization"):
        ptq.quantize(resnet(), plan=ptq.make_plan(resnet(), recipe=STEPS, runner=runner, effort="fast"), runner=runner)


def test_data_and_distilled_inputs_together_are_refused(digits):
    from netsuke.data import load_data

    with pytest.raises(UsageError, match="zeroq"):
        ptq.make_plan(digits, recipe=STEPS, calib=load_data("digits:train").take(8, 0), runner=runner, effort="fast")
