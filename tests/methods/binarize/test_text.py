"""Ternary and one-bit networks of text: what the engine runs on codes, and that it computes what was trained."""

from __future__ import annotations

from collections import Counter
from typing import Any

import numpy as np
import pytest

from netsuke import engine
from netsuke.capture import capture
from netsuke.methods.binarize import bibert, bitnet158
from netsuke.models import build
from netsuke.nn.binary_layers import freeze
from netsuke.passes import compile_program
from netsuke.program import Program, stored_bytes

torch = pytest.importorskip("torch")


def compiled(model: Any, length: int) -> Program:
    return compile_program(capture(freeze(model), shape=(1, length), dtype="i64"), name="text")


def both(model: Any, program: Program, tokens: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Answers of the engine and of torch."""
    with torch.no_grad():
        wanted = model(torch.from_numpy(tokens)).numpy()
    return np.asarray(next(iter(engine.load(program, threads=1).run(tokens).values()))), wanted


@pytest.mark.parametrize("scale", ["median", "mean"])
def test_a_ternary_text_classifier_runs_on_codes_of_8_bits(scale: str) -> None:
    model = bitnet158.apply(build("text_classifier_tiny"), bitnet158.Config(scale), keep=("head",)).eval()
    program = compiled(model, 16)
    layers = [n for n in program.nodes if n.op == "wlinear"]
    weights = [program.constants[n.inputs[1]] for n in layers]
    assert len(layers) == 8
    assert all(n.attrs["compute"] == "s8" for n in layers)
    assert all(set(np.unique(w)) == {-1, 0, 1} for w in weights)
    assert 8 * stored_bytes(program, [n.inputs[1] for n in layers]) <= 1.61 * sum(w.size for w in weights)
    found, wanted = both(model, program, np.random.default_rng(0).integers(0, 80, (64, 16)))
    # A code may turn over where a float LayerNorm or softmax in front of it differs in its last bit.
    assert (np.abs(found - wanted) < 1e-4).mean() > 0.9
    assert (found.argmax(1) == wanted.argmax(1)).mean() > 0.95


def test_a_one_bit_decoder_reads_no_masked_character() -> None:
    model = bibert.apply(build("char_lm_tiny"), bibert.Config()).eval()
    program = compiled(model, 32)
    ops = Counter(n.op for n in program.nodes)
    assert ops["blinear"] == 12
    assert ops["bmatmul"] >= 2
    tokens = np.random.default_rng(0).integers(32, 120, (8, 32))
    found, wanted = both(model, program, tokens)
    assert (np.abs(found - wanted) < 1e-3).mean() > 0.9
    changed = tokens.copy()
    changed[:, 20:] = 65
    again, _ = both(model, program, changed)
    assert np.array_equal(again[:, :20], found[:, :20])
    assert not np.array_equal(again[:, 20:], found[:, 20:])
