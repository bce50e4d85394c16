"""The call that `netsuke methods show` prints: every method has one, and it is right."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest
import torch
from tests.methods.diffusion.tiny import SAMPLING, dit, unet

from netsuke import engine
from netsuke.core.method import find, methods
from netsuke.core.options import configure
from netsuke.core.recipe import Recipe
from netsuke.models.binary_digits import BinaryDigitsCNN
from netsuke.pipeline import explain
from netsuke.pipeline.calls import call
from netsuke.pipeline.training import trainers

# Options that make a run of seconds; one method for each kind of result.
SMALL = {
    "diffusion/quest": "rounds=1, time_rounds=0, measured=0, batch=2",
    "diffusion/vq4dit": "rounds=1, entry_rounds=1, batch=2",
    "diffusion/float_ptq": "iterations=1",
}


def test_every_method_says_how_it_is_called() -> None:
    assert not [name for name, method in methods().items() if not call(method)]
    assert all(line in str(explain("diffusion/quest")) for line in call(find("diffusion/quest")))


def test_recipes_and_verbs_exist() -> None:
    """Steps and options of printed recipes are known; what `netsuke train` is told to take, it takes."""
    recipes = 0
    for name, method in methods().items():
        text = "\n".join(call(method))
        for listed in re.findall(r"recipe=(\[.*?\])", text):
            steps = Recipe.make(json.loads(listed)).steps
            assert any(step.method == name or name.partition("/")[2] in step.options.values() for step in steps), name
            for step in steps:
                configure(find(step.method).config, step.options, step.method)
            recipes += 1
        if text.startswith("netsuke train") and "--method" in text:
            assert name in trainers(), name
    assert recipes > 25


def _run(name: str, lines: list[str], given: dict[str, Any]) -> None:
    exec(compile("\n".join(lines), name, "exec"), given)  # the lines as printed, with the reader's words filled in


@pytest.mark.parametrize("name", sorted(SMALL))
def test_a_denoiser_is_called_as_printed(name: str, tmp_path: Path) -> None:
    config = find(name).config.__name__
    text = "\n".join(call(find(name))).replace("OUT.", f"{tmp_path}/")
    assert f"{config}(" in text
    text = text.replace(f"{config}()", f"{config}({SMALL[name]})").replace('"))', f'", {SMALL[name]}))')
    text = re.sub(r"Sampling\(.*\)$", "SAMPLING", text, flags=re.MULTILINE)
    _run(name, text.splitlines(), {"MODEL": unet() if name.endswith("quest") else dit(), "SAMPLING": SAMPLING})
    made = sorted(tmp_path.glob("*.nsk"))
    assert 1 <= len(made) <= SAMPLING.steps
    noise, labels = SAMPLING.start(2)
    feeds = {"image": noise.numpy(), "time": torch.full((2,), 500.0).numpy(), "label": labels.numpy()}
    assert next(iter(engine.load(made[0]).run(feeds).values())).shape == noise.shape


def test_a_binarizer_is_called_as_printed(tmp_path: Path) -> None:
    text = "\n".join(call(find("binarize/dorefa"))).replace("OUT.nsk", f"{tmp_path}/out.nsk")
    _run("binarize/dorefa", text.splitlines(), {"MODEL": BinaryDigitsCNN(8, 2), "SHAPE": (1, 1, 8, 8)})
    assert engine.load(tmp_path / "out.nsk").run(torch.rand(2, 1, 8, 8).numpy())
