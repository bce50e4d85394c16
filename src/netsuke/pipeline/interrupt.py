"""Ctrl-C: the first one asks the run to finish with what it has, the second one ends it."""

from __future__ import annotations

import contextlib
import signal
import threading
from collections.abc import Iterator
from typing import Any

from netsuke.pipeline.runner import EngineRunner


class Interrupted(Exception):
    """Raised out of work that cannot be cut short, so that the caller can go on with less."""


_state = {"asked": False, "raise": False}


def _handle(_signal: int, _frame: Any) -> None:
    if _state["asked"]:
        raise KeyboardInterrupt
    _state["asked"] = True
    if _state["raise"]:
        raise Interrupted


@contextlib.contextmanager
def watching(runner: EngineRunner) -> Iterator[None]:
    """Turn the first Ctrl-C into `runner.stop`. Does nothing outside the main thread, where Python delivers no
    signals.
    """
    runner.stop = lambda: _state["asked"]
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    _state["asked"] = False
    before = signal.signal(signal.SIGINT, _handle)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)


@contextlib.contextmanager
def raising() -> Iterator[None]:
    """Within: the first Ctrl-C raises Interrupted."""
    _state["raise"] = True
    try:
        yield
    finally:
        _state["raise"] = False
