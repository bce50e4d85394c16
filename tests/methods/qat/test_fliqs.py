"""FLIQS: formats and their codes, a policy that settles at the target, and the engine on what it chose."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import nn

from methods.qat.tiny import SHAPE, images
from netsuke import engine
from netsuke.core.errors import UsageError
from netsuke.formats import MINIFLOATS, round_minifloat
from netsuke.formats.forms import FORMS
from netsuke.methods.qat import TrainConfig, make_loss, prepare
from netsuke.methods.qat.fliqs import Fliqs, apply
from netsuke.nn.quantizer_formats import FormatWeights
from netsuke.passes import compile_program

torch.set_num_threads(1)


def test_e2m1_has_the_numbers_of_the_format_and_rounds_as_it_does() -> None:
    w = torch.randn(4, 60, generator=torch.Generator().manual_seed(0))
    w[:, 0] = 6.0  # the largest number: the scale is 1/2
    quantizer = FormatWeights(w.shape, "e2m1")
    found = quantizer(w)
    wanted = round_minifloat(w.numpy(), MINIFLOATS["e2m1"])
    halfway = np.abs(np.abs(w.numpy() - wanted) - np.abs(w.numpy() - found.numpy())) < 1e-6
    np.testing.assert_allclose(np.where(halfway, wanted, found.numpy()), wanted, rtol=1e-6)
    assert set(quantizer.codes(w).abs().unique().tolist()) <= {0, 1, 2, 3, 4, 6, 8, 12}


@pytest.mark.parametrize("form", sorted(FORMS))
def test_every_format_keeps_codes_of_eight_bits_and_as_many_levels_as_its_bits(form: str) -> None:
    bits, levels = FORMS[form]
    assert levels == sorted(set(levels))
    assert 0 == levels[0] < levels[-1] <= 127
    assert 2 * len(levels) - 1 <= 2**bits
    w = torch.randn(3, 50, generator=torch.Generator().manual_seed(1))
    quantizer = FormatWeights(w.shape, form)
    codes, values = quantizer.codes(w), quantizer(w)
    assert set(codes.abs().unique().tolist()) <= set(levels)
    torch.testing.assert_close(codes * quantizer.steps()[0][:, None], values)
    top = torch.tensor(levels, dtype=torch.float32)
    step = w.abs().amax(1, keepdim=True) / top[-1]
    nearest = (w.abs()[..., None] - top * step[..., None]).abs().min(-1).values
    torch.testing.assert_close((values - w).abs(), nearest, atol=1e-5, rtol=1e-5)


def network() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(3, 8, 3), nn.ReLU(), nn.Conv2d(8, 16, 3, bias=False), nn.BatchNorm2d(16), nn.ReLU(),
        nn.Conv2d(16, 16, 3), nn.ReLU(), nn.Flatten(), nn.Linear(64, 5),
    )  # fmt: skip


def test_the_policy_settles_near_the_target_and_what_it_chose_is_served() -> None:
    x, y = images()
    made = prepare(network(), shape=SHAPE, method="qat/ste", weight_bits=8, activation_bits=8, calib=x)
    search = apply(made, Fliqs("int2+int4+int8", target=4.0, delay=5, steps=60, rate=0.2))
    optimizer = torch.optim.SGD(made.groups(0.02, 1e-4), lr=0.02, momentum=0.9)
    loss = make_loss(None, TrainConfig())
    for _ in range(70):
        search(made.train(), x, y, loss, optimizer)
    assert search.log[-1]["entropy"] < 0.3 < search.log[0]["entropy"]
    note = search.finish()
    choice = torch.tensor([search.names.index(f) for f in search.formats().values()])
    assert abs(search.mean_bits(choice) - 4.0) <= 1.5
    assert "bits a weight of 4 asked" in note
    for name, form in search.formats().items():
        codes = made.layers()[name].serve().codes
        assert int(codes.abs().max()) <= FORMS[form][1][-1]
    with torch.no_grad():
        expected = made.eval()(x[:4]).numpy()
    np.testing.assert_array_equal(np.asarray(engine.load(compile_program(made.export()))(x[:4].numpy())), expected)


def test_impossible_searches_are_refused() -> None:
    for options in ({"formats": "int4"}, {"formats": "int4+e9m9"}, {"target": 9.0}, {"delay": 400}):
        with pytest.raises(UsageError):
            Fliqs(**options)  # type: ignore[arg-type]
