"""`compress` that is interrupted, resumed, or out of time."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from netsuke.core.budget import Budget
from netsuke.core.errors import FileError
from netsuke.pipeline import compress, interrupt
from netsuke.pipeline.runner import EngineRunner
from netsuke.pipeline.state import RunFolder
from tiny_network import inputs, network


def test_the_end_of_the_promised_time_cuts_calibration_short() -> None:
    """A clock that has run out: planning falls back to the fast plan, calibration keeps the batch it has."""
    budget = Budget(time="0.001s")
    made = compress(network(), calib=inputs(64), budget=budget, measure=False)
    assert made.interrupted
    assert any("cut short" in n for n in made.notes)
    assert any(m.kind == "time" for m in made.missed)
    assert made.layers.counts()["packed"] == 5, "what there is is still a whole network"


def counted(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """A list that gets the number of samples of every run of a network over data."""
    runs: list[int] = []
    plain = EngineRunner.__call__

    def call(self: EngineRunner, model: Any, batches: Any, taps: Any) -> Any:
        runs.append(0)
        yield from plain(self, model, _counting(batches, runs), taps)

    def _counting(batches: Any, runs: list[int]) -> Any:
        for feeds in batches:
            runs[-1] += len(next(iter(feeds.values())))
            yield feeds

    monkeypatch.setattr(EngineRunner, "__call__", call)
    return runs


def test_planning_and_quantization_share_one_calibration(monkeypatch: pytest.MonkeyPatch) -> None:
    runs = counted(monkeypatch)
    compress(network(), calib=inputs(96), measure=False)
    assert runs.count(96) == 3, "one calibration, bias correction while planning and again; sensitivities take fewer"


def test_an_interrupted_run_resumes_to_the_same_bytes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    whole, resumed = tmp_path / "whole.nsk", tmp_path / "resumed.nsk"
    arguments: dict[str, Any] = {"calib": inputs(96), "measure": False, "effort": "fast"}
    compress(network(), output=whole, **arguments)
    folder = RunFolder.create(tmp_path / "run", {"model": "tiny"})
    monkeypatch.setattr(EngineRunner, "_over", lambda self: self.may_stop)
    first = compress(network(), output=resumed, run=folder, **arguments)
    assert first.interrupted
    assert folder.plan() is not None
    assert folder.quantized() is None, "statistics of a part of the data are never taken for all of them"
    monkeypatch.undo()
    runs = counted(monkeypatch)
    opened, request = RunFolder.open(tmp_path / "run")
    assert request == {"model": "tiny"}
    second = compress(network(), output=resumed, run=opened, **arguments)
    assert not second.interrupted
    assert runs == [64, 96], "calibration goes on behind the batch it has seen; bias correction reads all"
    assert resumed.read_bytes() == whole.read_bytes()
    assert opened.quantized() is not None


def test_resuming_about_other_data_is_refused(tmp_path: Path) -> None:
    folder = RunFolder.create(tmp_path / "run", {})
    compress(network(), calib=inputs(16), run=folder, effort="fast", measure=False)
    with pytest.raises(FileError, match="changed since"):
        compress(network(), calib=inputs(16, seed=99), run=folder, effort="fast", measure=False)


@pytest.mark.parametrize("content", [None, "{", '{"version": 99}'])
def test_a_folder_that_is_no_run(tmp_path: Path, content: str | None) -> None:
    if content is not None:
        (tmp_path / "request.json").write_text(content)
    with pytest.raises(FileError):
        RunFolder.open(tmp_path)


def test_the_first_interrupt_asks_the_second_ends() -> None:
    runner = EngineRunner()
    with interrupt.watching(runner):
        assert not runner.stop()
        interrupt._handle(2, None)
        assert runner.stop()
        with pytest.raises(KeyboardInterrupt):
            interrupt._handle(2, None)
    with interrupt.watching(runner), interrupt.raising(), pytest.raises(interrupt.Interrupted):
        interrupt._handle(2, None)
