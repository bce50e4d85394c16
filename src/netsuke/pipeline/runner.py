"""What runs graphs for the methods: our own engine, batch by batch, handing out tapped values."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from netsuke.passes import compile_program
from netsuke.verify.runners import open_runner, runtime_available

Array = np.ndarray[Any, Any]


class EngineRunner:
    """Compiles a graph with the tapped values as outputs and runs it over the batches; one batch is held at a time.

    While `may_stop` is set, the stream ends early once `stop` says so or the deadline has passed, but never before the
    first batch: calibration then goes on with what it has seen. `samples` counts what was handed out, `cut` says it
    ended early.
    """

    def __init__(self, threads: int | None = None, stop: Callable[[], bool] = lambda: False) -> None:
        self.threads = threads
        self.stop = stop
        self.deadline: float | None = None
        self.may_stop = False
        self.samples = 0
        self.cut = False

    @property
    def name(self) -> str:
        return "netsuke engine" if runtime_available() else "reference interpreter (no compiled runtime: slow)"

    def __call__(
        self, model: Any, batches: Iterable[Mapping[str, Array]], taps: Sequence[str]
    ) -> Iterator[Mapping[str, Array]]:
        program = compile_program(model, name="calibration", taps=tuple(taps))
        runner = open_runner(program, self.threads, plain=True)  # a graph is run over a few batches and forgotten
        wanted = list(taps) or [port.name for port in program.outputs]
        for index, feeds in enumerate(batches):
            if index and self.may_stop and self._over():
                self.cut, self.may_stop = True, False
                return
            values = runner.run(feeds)
            self.samples += len(next(iter(feeds.values())))
            yield {name: values[name] for name in wanted}

    def _over(self) -> bool:
        return self.stop() or (self.deadline is not None and time.monotonic() > self.deadline)
