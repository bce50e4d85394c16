"""VQ4DiT and float formats on a tiny transformer: what is stored, what is learned, what is refused."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from tests.methods.diffusion.tiny import SAMPLING, dit, unet

from netsuke import engine
from netsuke.core.errors import UsageError
from netsuke.methods.diffusion import float_ptq, vq4dit
from netsuke.methods.diffusion._floats import FORMS, SEARCH, FloatLayer, best_grid, learn_rounding, points
from netsuke.methods.diffusion._vector import VectorLinear
from netsuke.passes import compile_program


def ran(graph: Any, network: Any) -> tuple[np.ndarray, np.ndarray, Any]:
    program = compile_program(graph)
    noise, labels = SAMPLING.start(5, 3)
    t = torch.full((5,), 500.0)
    with torch.no_grad():
        wanted = network(noise, t, labels).numpy()
    given = {"image": noise.numpy(), "time": t.numpy(), "label": labels.numpy()}
    return np.asarray(next(iter(engine.load(program).run(given).values()))), wanted, program


def test_vectors_decide_and_are_stored_as_entries() -> None:
    made = vq4dit.apply(dit(), SAMPLING, vq4dit.Vq4Dit(entries=4, rounds=3, entry_rounds=2, batch=8, rate=0.5))
    found, wanted, program = ran(made.export(), made.network)
    np.testing.assert_allclose(found, wanted, atol=2e-4)
    layers = [n for n in program.nodes if n.op == "wlinear"]
    assert len(layers) == 10
    for node in layers:
        codes = program.constants[node.inputs[1]]
        assert codes.dtype == np.int8
        assert len(np.unique(codes.reshape(-1, 2), axis=0)) <= 4
    assert 0 < made.facts["moved"] < 1
    assert made.losses[-1] < made.losses[0]


def test_training_the_codebook_alone_leaves_assignments() -> None:
    made = vq4dit.apply(dit(), SAMPLING, vq4dit.Vq4Dit(entries=4, rounds=1, entry_rounds=1, batch=8, assignments=False))
    assert made.facts["moved"] == 0


def test_bits_per_weight_count_everything() -> None:
    layer = VectorLinear(torch.nn.Linear(64, 64), 16, 2, np.random.default_rng(0))
    assert layer.stored_bits() == pytest.approx(2 + 8 * (16 * 2 + 4 * 64) / 4096)


def test_a_mixed_vector_may_not_get_more_mixed() -> None:
    layer = VectorLinear(torch.nn.Linear(8, 8), 4, 2, np.random.default_rng(0))
    with torch.no_grad():
        layer.z.fill_(1.0)
    assert float(layer.undecided().detach()) == 0.0
    with torch.no_grad():
        layer.z.fill_(0.5)
    assert float(layer.undecided().detach()) > 0.2
    with torch.no_grad():
        layer.z.fill_(9.0)
    assert layer.decide(0.99) == 1.0


@pytest.mark.parametrize("name", sorted({n for names in SEARCH.values() for n in names}))
def test_every_split_has_the_points_of_its_definition(name: str) -> None:
    form = FORMS[name]
    grid = points(form)
    assert grid.hi == form.largest
    assert grid.lo == -grid.hi
    missing = {"ieee": 2 ** (form.mantissa + 1), "nan": 2, "none": 0}[form.special]
    assert grid.levels == 2**form.bits - 1 - missing


def test_heavy_tails_want_exponents_and_uniform_numbers_do_not() -> None:
    rng = np.random.default_rng(1)
    heavy = torch.from_numpy(rng.standard_t(2, 20000).astype(np.float32))
    flat = torch.from_numpy(rng.uniform(-1, 1, 20000).astype(np.float32))
    assert best_grid(flat, SEARCH[8]).form.name == "e2m5"
    assert best_grid(heavy, SEARCH[8]).form.exponent > 2
    assert best_grid(flat, SEARCH[4]).form.name == "e1m2"


def test_learned_rounding_beats_the_nearest_point_on_the_output() -> None:
    torch.manual_seed(0)
    inner, x = torch.nn.Linear(16, 8), torch.randn(64, 16) @ torch.randn(16, 16)
    layer = FloatLayer(inner, best_grid(inner.weight, ("e2m1",)))
    wanted = inner(x).detach()
    nearest = float(((layer(x) - wanted) ** 2).mean().detach())
    learn_rounding(layer, x, wanted, iterations=300, batch=32, rate=2e-2, regular=1e-2, seed=0)
    with torch.no_grad():
        assert float(((layer(x) - wanted) ** 2).mean()) < 0.9 * nearest
        steps = (layer.weight() / layer.grid.scale).flatten()
        assert bool(torch.isin(steps.round(decimals=4), layer.grid.grid.table).all())


def test_linear_layers_run_packed_at_their_bits() -> None:
    made = float_ptq.apply(dit(), SAMPLING, float_ptq.FloatPtq(layers="blocks.*", iterations=10))
    found, wanted, program = ran(made.export(), made.network)
    np.testing.assert_allclose(found, wanted, atol=2e-4)
    forms = [n.attrs["format"] for n in program.nodes if n.op == "wlinear"]
    assert forms == ["e2m1"] * 10
    assert made.simulated == {}


def test_what_has_no_kernel_is_refused_by_name() -> None:
    with pytest.raises(UsageError, match=r"stem[\s\S]*no kernel[\s\S]*convolution"):
        float_ptq.apply(unet(), SAMPLING)
    with pytest.raises(UsageError, match="activations of 8 bits"):
        float_ptq.apply(dit(), SAMPLING, float_ptq.FloatPtq(layers="blocks.*", activation_bits=8))
    config = float_ptq.FloatPtq(activation_bits=8, packed=False, iterations=2, allow_simulated=True)
    made = float_ptq.apply(unet(), SAMPLING, config)
    assert made.formats["stem"].split("/")[1] in SEARCH[8]
    with pytest.raises(UsageError, match="simulated layers cannot be exported"):
        made.export()
    with pytest.raises(UsageError, match=r"weight_bits[\s\S]*activation_bits"):
        float_ptq.FloatPtq(weight_bits=3, activation_bits=5)
