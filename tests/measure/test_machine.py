"""Limits and their cache, the environment block, feeds."""

from __future__ import annotations

import json
import types
from pathlib import Path

import numpy as np
import pytest

from netsuke.core.errors import UsageError
from netsuke.measure import environment, layers, machine
from netsuke.measure.doctor import doctor
from netsuke.measure.feeds import concrete_shapes, random_feeds
from netsuke.measure.machine import Limits
from netsuke.program.model import Node, Port, Program
from netsuke.program.ranges import input_ranges

RATES = {k: 1.0 for k in Limits.__dataclass_fields__ if k != "isa"}


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    return tmp_path


def pretend(monkeypatch: pytest.MonkeyPatch, rates: dict[str, float]) -> None:
    runtime = types.SimpleNamespace(isas=lambda: [("avx2", True), ("avx9", False)], limits=lambda _isa, _s: rates)
    monkeypatch.setattr(machine, "_runtime", lambda: runtime)


def test_limits_are_cached_and_keep_the_best(monkeypatch: pytest.MonkeyPatch) -> None:
    assert machine.read_cached() == {}
    pretend(monkeypatch, RATES | {"f32_gmacs": 50.0, "int8_gmacs": 40.0})
    assert machine.measure()["avx2"].f32_gmacs == 50.0
    pretend(monkeypatch, RATES | {"f32_gmacs": 30.0, "int8_gmacs": 45.0})
    machine.measure()
    found = machine.read_cached()
    assert set(found) == {"avx2"}, "an instruction set this CPU lacks is not measured"
    assert (found["avx2"].f32_gmacs, found["avx2"].int8_gmacs) == (50.0, 45.0)
    assert machine.limits("avx2") == found["avx2"] == machine.limits()
    assert machine.limits("portable") is None


@pytest.mark.parametrize(
    "text", ["", "{", '{"schema": "netsuke.limits/0"}', '{"schema": "netsuke.limits/2", "limits": {"a": {}}}']
)
def test_a_damaged_cache_counts_as_none(text: str) -> None:
    machine.cache_folder().mkdir(parents=True)
    machine.cache_file().write_text(text)
    assert machine.read_cached() == {}


def test_without_runtime_nothing_is_measured(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(machine, "_runtime", lambda: None)
    assert machine.measure() == {}
    assert machine.limits(measure_now=True) is None


def test_share_of_the_limit() -> None:
    limits = Limits("avx2", 50, 0, 40, 80, 100, 50, 40, 10)
    row = {"ms": 1.0, "macs": 40_000_000, "bytes": 8_000, "kernel": "qconv_a8w8_x86_avx2", "op": "qconv"}
    found = layers.rate(row, limits, threads=1)
    assert found["gmacs"] == pytest.approx(40)
    assert found["of_limit"] == pytest.approx(0.5)
    assert found["bound_by"] == "arithmetic"
    assert layers.rate(row, limits, threads=2)["of_limit"] == pytest.approx(0.25)
    moved = layers.rate({"ms": 1.0, "macs": 0, "bytes": 5_000_000, "kernel": "copy", "op": "transpose"}, limits, 1)
    assert moved["bound_by"] == "memory"
    assert moved["of_limit"] == pytest.approx(5 / 40)
    assert moved["gmacs"] is None
    assert layers.rate(row, None, 1)["of_limit"] is None


def test_environment_is_json_and_complete() -> None:
    found = environment.capture()
    json.dumps(found, allow_nan=False)
    assert found["cpu"]["cores"] >= 1
    assert {"python", "numpy", "netsuke"} <= found["versions"].keys()
    assert len(environment.cpu_identity()) == 16
    assert environment.peak_memory_bytes() > 1_000_000


def test_disturbance_is_never_negative() -> None:
    found = environment.Disturbance().start()
    sum(range(200_000))
    found.stop()
    assert found.others >= 0
    assert found.stolen >= 0
    assert environment.worst([found, environment.Disturbance(others=99.0)]).others == 99.0


def test_doctor_says_what_to_do(monkeypatch: pytest.MonkeyPatch) -> None:
    pretend(monkeypatch, RATES)
    health = doctor()
    assert health.limits
    text = str(health)
    assert "cpu" in text
    assert "limits of one core" in text
    json.dumps(health.as_json(), allow_nan=False)
    assert all(f.fix for f in health.findings if f.level == "problem"), "every problem comes with its fix"


def test_shapes_are_filled_in() -> None:
    port = Port("x", "f32", ("N", 3, "H", "W"))
    assert concrete_shapes([port], {"": (2, 3, 8, 9)}, batch=4) == {"x": (4, 3, 8, 9)}
    assert concrete_shapes([port], {"x": (3, 8, 9)}) == {"x": (1, 3, 8, 9)}
    assert concrete_shapes([Port("x", "f32", (2, 5))], batch=7) == {"x": (2, 5)}, "a fixed batch stays"
    with pytest.raises(UsageError, match="free dimensions"):
        concrete_shapes([port])
    with pytest.raises(UsageError) as caught:
        concrete_shapes([port, Port("m", "i64", ("N", 4))], {"y": (1,), "m": (1, 5)})
    assert len(caught.value.problems) == 3, "unknown name, free dimensions and a contradiction are told together"


def test_feeds_have_the_right_types_and_repeat() -> None:
    ports = [Port("x", "f32", (2, 3)), Port("ids", "i64", (2, 4)), Port("q", "u8", (2, 2))]
    shapes = concrete_shapes(ports)
    feeds = random_feeds(ports, shapes, seed=3)
    assert [feeds[p.name].dtype for p in ports] == [np.float32, np.int64, np.uint8]
    assert feeds["ids"].max() <= 1
    again = random_feeds(ports, shapes, seed=3)
    assert all(np.array_equal(feeds[n], again[n]) for n in feeds)


def test_feeds_stay_within_what_the_codes_of_an_input_can_hold() -> None:
    nodes = [
        Node("transpose", "t", ["x"], ["xt"], {"perm": [1, 0]}),
        Node("quantize", "q", ["xt"], ["codes"], {"scale": 0.5, "zero": 3, "lo": 0, "hi": 15}),
    ]
    ports = [Port("x", "f32", (20, 30)), Port("free", "f32", (4,))]
    ranges = input_ranges(Program("net", ports, [Port("codes", "u8", (30, 20))], nodes))
    assert ranges == {"x": (-1.5, 6.0)}
    feeds = random_feeds(ports, concrete_shapes(ports), ranges=ranges)
    assert feeds["x"].dtype == np.float32
    assert (-1.5 <= feeds["x"].min() < -1) & (5.5 < feeds["x"].max() <= 6)
