"""Every record of the catalogue keeps its room's contract."""

import ast
import dataclasses
import importlib
import inspect
import subprocess
import sys

import pytest

from netsuke.core.method import methods

RECORDS = list(methods().values())
HEADINGS = ("Cost:", "Limits:")


@pytest.mark.parametrize("record", RECORDS, ids=lambda r: r.name)
def test_record_is_complete(record):
    assert record.purpose
    assert record.cost
    assert record.paper
    assert dataclasses.is_dataclass(record.config)
    assert record.config.__dataclass_params__.frozen
    record.config()  # every option has a default
    assert callable(record.apply)


@pytest.mark.parametrize("record", RECORDS, ids=lambda r: r.name)
def test_file_header_says_paper_cost_and_limits(record):
    module = importlib.import_module(record.apply.__module__)
    header = ast.get_docstring(ast.parse(inspect.getsource(module)))
    assert any(word in header for word in ("Paper:", "Source:"))
    for word in HEADINGS:
        assert word in header


def test_catalogue_loads_no_torch():
    code = "import sys; from netsuke.core.method import methods; methods(); sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
