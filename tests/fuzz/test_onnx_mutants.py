"""A few damaged ONNX files in every test run; `python -m tests.fuzz.onnx_mutants` runs many."""

from __future__ import annotations

import numpy as np

from .onnx_mutants import models, mutate, outcome


def test_the_models_themselves_compile() -> None:
    assert [outcome(data) for data in models()] == ["program"] * 4


def test_a_graph_name_that_is_no_text_is_refused() -> None:
    data = models()[0]
    at = data.index(b"\x12\x01g")  # field 2, length 1: the name of the graph
    assert outcome(data[: at + 2] + b"\xff" + data[at + 3 :]) == "refused"


def test_mutants_are_refused_or_compile() -> None:
    base = models()
    found = [outcome(mutate(base[seed % 4], np.random.default_rng(seed))) for seed in range(120)]
    assert set(found) == {"program", "refused"}
