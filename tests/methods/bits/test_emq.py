"""Evolved proxies: trees, ranking, and the sensitivity they make."""

import numpy as np
import pytest
from scipy.stats import spearmanr

from contracts.bits import CountingRunner, _context
from netsuke.core.errors import UsageError
from netsuke.methods.bits import _proxies, emq
from netsuke.methods.bits._probe import Probe
from netsuke.methods.bits._problem import Format

FORMATS = (Format(2, 8), Format(4, 8), Format(8, 8))


def tables(seed=0, layers=6):
    rng = np.random.default_rng(seed)
    names = {name: rng.random((layers, 3)) + 0.1 for name in emq.INPUTS}
    configs = rng.integers(0, 3, (80, layers))
    return names, configs, rng


def test_rank_correlation_is_spearmans_and_constants_have_none():
    rng = np.random.default_rng(1)
    a, b = rng.integers(0, 6, 50).astype(float), rng.random(50)
    assert _proxies.rank_correlation(a, b) == pytest.approx(spearmanr(a, b)[0])
    assert _proxies.rank_correlation(np.ones(5), b[:5]) == 0
    assert _proxies.rank_correlation(np.array([1.0, np.nan]), b[:2]) == 0


def test_evolution_finds_a_hidden_formula_better_than_its_parts():
    inputs, configs, rng = tables()
    hidden = np.log(inputs["error"]) * np.sqrt(inputs["curvature"])
    quality = -_proxies.scores(hidden, configs)
    train, held = configs[:40], configs[40:]
    best = emq.best_tree(inputs, train, quality[:40], emq.Emq(), rng)
    found = _proxies.rank_correlation(_proxies.scores(best.tree.values(inputs), held), quality[40:])
    assert best.fitness > 0.95
    assert found > 0.9
    assert found > max(emq.correlations(inputs, held, quality[40:]).values())
    again = emq.best_tree(inputs, train, quality[:40], emq.Emq(), tables()[2])
    assert isinstance(str(again.tree), str)


def test_no_operation_gives_something_else_than_numbers_of_the_shape():
    x = np.array([[0.0, -2.0, 1e9], [1e-20, 3.0, -1e-9]])
    for name, function in _proxies.UNARY.items():
        assert function(x).shape == x.shape, name
    for name, join in _proxies.BINARY.items():
        assert np.isfinite(join(x, x)).all(), name


def test_harms_fall_with_bits_and_the_note_tells_the_formula():
    context = _context(CountingRunner(1), 0)
    probe = Probe(context, 8)
    layers = ["block.conv1", "block.conv2"]
    harm = emq.apply(probe, layers, FORMATS, emq.Emq(table=24, rounds=100, population=10))
    assert min(harm.values()) == 0
    total = [sum(harm[n, f] for n in layers) for f in FORMATS]
    assert total[0] > total[-1]
    assert any("emq:" in note and "held-out" in note for note in context.plan.notes)


def test_impossible_options_are_listed():
    with pytest.raises(UsageError) as caught:
        emq.Emq(table=1, rounds=0, population=1)
    assert len(caught.value.problems) == 3
