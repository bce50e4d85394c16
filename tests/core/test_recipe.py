from dataclasses import dataclass

import pytest
from hypothesis import given
from hypothesis import strategies as st

from netsuke.core.errors import FileError, UsageError
from netsuke.core.method import methods
from netsuke.core.options import configure, format_options, parse_options
from netsuke.core.recipe import BUILTIN, Recipe, Step


@dataclass(frozen=True)
class Config:
    percent: float = 99.9
    rounds: int = 3
    name: str = "a"
    flag: bool = False


def test_builtin_recipes_name_methods_that_exist():
    known = methods()
    for name in BUILTIN:
        recipe = Recipe.make(name)
        for step in recipe.steps:
            configure(known[step.method].config, step.options, step.method)


def test_steps_keep_order_and_options():
    recipe = Recipe.make(["quantize/equalization", "qat/lsq:w4a8,lr=1e-3"])
    assert [s.method for s in recipe.steps] == ["quantize/equalization", "qat/lsq"]
    assert recipe.steps[1].options == {"w4a8": True, "lr": 1e-3}
    assert str(recipe) == "custom: quantize/equalization -> qat/lsq:w4a8,lr=0.001"


@pytest.mark.parametrize("bad", ["quantize", "/x", "a/", "a/b/c", "a/b:=1", "a/b:k=", "a/b:k=1,k=2"])
def test_bad_steps(bad):
    with pytest.raises(UsageError):
        Step.parse(bad)


def test_unknown_name_and_empty_list():
    with pytest.raises(UsageError, match="did you mean cpu-int8"):
        Recipe.make("cpu-in8")
    with pytest.raises(UsageError, match="at least one"):
        Recipe.make([])


def test_toml_round_trip(tmp_path):
    path = tmp_path / "mine.toml"
    recipe = Recipe("mine", (Step.parse("quantize/whitepaper_int8:calibrator=mse,samples=64"),))
    recipe.save(path)
    assert Recipe.make(str(path)) == recipe
    path.write_text("name = 'x'\nstep = []\n")
    with pytest.raises(FileError, match="list of steps"):
        Recipe.load(path)
    with pytest.raises(FileError):
        Recipe.load(tmp_path / "none.toml")


keys = st.text("abcdefgh_", min_size=1, max_size=8)
values = st.booleans() | st.integers(-1000, 1000) | st.floats(-1e6, 1e6) | st.sampled_from(["mse", "max-abs"])


@given(st.dictionaries(keys, values, max_size=4))
def test_options_round_trip(options):
    assert parse_options(format_options(options)) == options


def test_configure_types():
    assert configure(Config, {"percent": 99, "flag": True}) == Config(percent=99.0, flag=True)
    with pytest.raises(UsageError) as caught:
        configure(Config, {"percnt": 1, "rounds": 2.5, "flag": 1, "name": True}, "room/x")
    assert len(caught.value.problems) == 4
    assert "did you mean percent" in str(caught.value)
