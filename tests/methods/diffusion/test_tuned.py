"""QuEST and EfficientDM on a tiny U-Net: who is trained, what merges, and that programs compute what was trained."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from tests.methods.diffusion.tiny import SAMPLING, dit, unet

from netsuke import engine
from netsuke.core.errors import UsageError
from netsuke.methods.diffusion import efficientdm, quest
from netsuke.methods.diffusion._gain import match_run, restore_gain
from netsuke.methods.diffusion._sampling import Sampling, together, trajectory
from netsuke.methods.diffusion._tuned import output_error, quantized
from netsuke.nn.diffusion import sample
from netsuke.passes import compile_program


@pytest.fixture(scope="module")
def tuned() -> Any:
    config = efficientdm.EfficientDM(rounds=6, batch=8, rank=4, rate=0.1)
    return efficientdm.apply(unet(), SAMPLING, config)


def test_the_run_of_the_float_network_is_the_data() -> None:
    seen = trajectory(unet(), SAMPLING)
    assert [float(s.inputs[1][0]) for s in seen] == [1000.0, 500.0]
    assert together(seen).inputs[0].shape == (32, 1, 4, 4)
    assert torch.equal(seen[0].inputs[0], trajectory(unet(), SAMPLING)[0].inputs[0])
    assert not torch.equal(seen[0].inputs[0], trajectory(unet(), SAMPLING, round_=1)[0].inputs[0])


def test_steps_share_weights_and_have_scales_of_their_own() -> None:
    made = quantized(unet(), SAMPLING, weight_bits=4, activation_bits=4, per_step=True)
    first, second = (network.layers()["up2.conv1"] for network in made.networks)
    assert first.layer is second.layer
    assert first.weight is second.weight
    assert first.source is not second.source
    scales = [{n: float(q.scale.detach()) for n, q in net.activation_quantizers().items()} for net in made.networks]
    assert scales[0] != scales[1]


def test_adapters_lower_the_error_and_merge_without_a_trace(tuned: Any) -> None:
    assert tuned.facts["error_tuned"] < tuned.facts["error_untuned"]
    assert tuned.facts["codes_changed"] > 0
    assert tuned.facts["codes_changed_by_merging"] == 0
    assert all(layer.adapter is None for layer in tuned.layers().values())


def test_every_program_computes_its_step(tuned: Any) -> None:
    for step, graph in enumerate(tuned.exports()):
        run = engine.load(compile_program(graph))
        noise, labels = SAMPLING.start(5, 3)
        t = torch.full((5,), 1000.0 - 500.0 * step)
        with torch.no_grad():
            wanted = tuned.at(step)(noise, t, labels).numpy()
        given = {"image": noise.numpy(), "time": t.numpy(), "label": labels.numpy()}
        found = np.asarray(next(iter(run.run(given).values())))
        same = (found == wanted).reshape(5, -1).all(1)
        assert same.sum() >= 4, "LayerNorm and softmax are floats: a last bit may move a code, but seldom"


def test_quest_trains_what_it_says_and_nothing_else() -> None:
    made = quest.apply(unet(), SAMPLING, quest.Quest(time_rounds=2, rounds=4, batch=8, measured=1))
    assert made.facts["error_tuned"] < made.facts["error_untuned"]
    assert made.facts["frozen_codes_changed"] == 0
    assert 0 < made.facts["trained_share"] < 1
    assert [len(made.losses[stage]) for stage in ("time", "fragile")] == [2, 4]


@pytest.mark.parametrize("make", [unet, dit])
def test_the_gain_is_restored_and_no_code_moves(make: Any) -> None:
    """The output layer of `unet` is the output; that of `dit` is reshaped to patches behind it."""

    def explained(tuned: Any) -> list[float]:
        seen = trajectory(make(), SAMPLING, count=128, round_=77)
        with torch.no_grad():
            made = [tuned.at(i).eval()(*s.inputs) for i, s in enumerate(seen)]
        return [float((s.v * v).mean() / (s.v**2).mean()) for s, v in zip(seen, made, strict=True)]

    few = {"time_rounds": 1, "rounds": 2, "batch": 8, "measured": 1}
    plain, restored = (quest.apply(make(), SAMPLING, quest.Quest(**few, gain=gain)) for gain in (False, True))
    lost = [max(abs(share - 1) for share in explained(tuned)) for tuned in (plain, restored)]
    assert lost[1] < 0.5 * lost[0]
    assert all(torch.equal(codes, restored.codes()[name]) for name, codes in plain.codes().items())
    first = next(iter(plain.layers()))
    assert restored.networks[0].layers()[first].layer is restored.networks[1].layers()[first].layer


def test_one_gain_for_all_steps_brings_the_deviation_of_a_run_nearer() -> None:
    made = quantized(unet(), SAMPLING, weight_bits=4, activation_bits=4, per_step=True)
    restore_gain(unet(), made, first=3)
    noise, labels = SAMPLING.start(512, 5)  # the run that `match_run` looks at
    wanted = float(sample(unet(), noise, labels, SAMPLING.steps).std())
    codes, before = made.codes(), float(made.images(noise, labels).std())
    gain = match_run(unet(), made, first=4)
    after = float(made.images(noise, labels).std())
    assert 1 / 1.05 <= gain <= 1.05
    assert abs(after - wanted) <= abs(before - wanted)
    assert all(torch.equal(found, made.codes()[name]) for name, found in codes.items())


def test_a_gain_without_a_scale_to_go_into_is_refused_before_training() -> None:
    class Doubled(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.inner = unet()

        def forward(self, image: torch.Tensor, time: torch.Tensor, label: torch.Tensor) -> torch.Tensor:
            out: torch.Tensor = self.inner(image, time, label)
            return out + image

    config = efficientdm.EfficientDM(rounds=1_000_000, batch=4, rank=2)
    with pytest.raises(UsageError, match="gain=False"):
        efficientdm.apply(Doubled(), SAMPLING, config)


def test_quest_finds_the_time_layers_of_a_transformer() -> None:
    made = quest.apply(dit(), SAMPLING, quest.Quest(time_rounds=1, rounds=1, batch=8, measured=0, per_step=False))
    assert len(made.networks) == 1
    assert np.isfinite(output_error(made, trajectory(dit(), SAMPLING)))


def test_what_cannot_be_is_refused() -> None:
    with pytest.raises(UsageError, match=r"weight_bits[\s\S]*batch"):
        quest.Quest(weight_bits=1, batch=0)
    with pytest.raises(UsageError, match="rank"):
        efficientdm.EfficientDM(rank=0)
    with pytest.raises(UsageError, match="no layer matches"):
        quest.apply(unet(), SAMPLING, quest.Quest(time="clock.*"))
    with pytest.raises(UsageError, match=r"steps[\s\S]*shape"):
        Sampling(steps=0, shape=(8, 8))
