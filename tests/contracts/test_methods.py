"""Every method keeps the contract of its record; a method is tested the moment it registers."""

from __future__ import annotations

import dataclasses
import importlib
import sys
import tomllib

import pytest
import tomli_w

from contracts import binarize, bits, diffusion, integer, qat, quantize
from netsuke.core.errors import UsageError
from netsuke.core.method import Method, methods
from netsuke.core.options import configure, format_options, parse_options
from netsuke.papers.ledger import rows

METHODS = methods()
# A room without an exerciser fails here, not silently.
ROOMS = {
    "binarize": binarize.exercise,
    "bits": bits.exercise,
    "codebook": quantize.exercise,
    "diffusion": diffusion.exercise,
    "integer": integer.exercise,
    "qat": qat.exercise,
    "quantize": quantize.exercise,
}


@pytest.fixture(params=sorted(METHODS))
def method(request: pytest.FixtureRequest) -> Method:
    return METHODS[request.param]


def test_config_round_trips_through_toml(method: Method) -> None:
    config = method.config()
    values = dataclasses.asdict(config)
    assert configure(method.config, tomllib.loads(tomli_w.dumps(values)), method.name) == config
    assert configure(method.config, parse_options(format_options(values)), method.name) == config


def test_unknown_key_is_refused_with_near_names(method: Method) -> None:
    fields = [f.name for f in dataclasses.fields(method.config)]
    wrong = f"{fields[0]}x" if fields else "nothing"
    with pytest.raises(UsageError) as caught:
        configure(method.config, {wrong: 1}, method.name)
    assert (fields[0] if fields else "no options") in str(caught.value)


def test_docstring_says_what_the_house_asks(method: Method) -> None:
    text = sys.modules[method.apply.__module__].__doc__ or ""
    missing = [word for word in ("Paper:", "Idea:", "Equations:", "Differences:", "Cost:") if word not in text]
    assert not missing
    assert method.cost


def test_paper_is_a_row_of_the_ledger(method: Method) -> None:
    assert method.paper in {row.id for row in rows()}


def test_needs_and_touches_are_true(method: Method) -> None:
    seen = ROOMS[method.room](method, seed=0)
    assert seen.touched <= set(method.touches), "it touches more than it says"
    assert set(method.touches) <= seen.touched, "it says it touches what it leaves alone"
    assert seen.reads_data == ("data" in method.needs)


def test_same_seed_same_bytes(method: Method) -> None:
    assert ROOMS[method.room](method, seed=3).result == ROOMS[method.room](method, seed=3).result


def test_exports_are_operators(method: Method) -> None:
    from netsuke.program.opset import OPERATORS

    assert set(method.exports) <= set(OPERATORS)


def test_importing_records_loads_no_torch() -> None:
    import subprocess

    code = "import sys; from netsuke.core.method import methods; methods(); sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_records_live_in_the_file_of_their_name() -> None:
    for name, record in METHODS.items():
        module = importlib.import_module("netsuke.methods." + name.replace("/", "."))
        assert module.METHOD is record
