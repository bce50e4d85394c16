"""Where the time of a compression goes: seconds by phase, and how much memory the process had needed by its end."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from netsuke.measure import environment


@dataclass
class _Phase:
    seconds: float = 0.0
    processor: float = 0.0
    peak: int | None = None


@dataclass
class Phases:
    """A progress callback (text, fraction) that passes on what it gets and adds up the time under each text.

    A phase that comes again (calibration, after an interrupt) goes on where it stood; phases keep the order of their
    first start.
    """

    progress: Callable[[str, float], None]
    current: str = ""
    table: dict[str, _Phase] = field(default_factory=dict)
    _since: tuple[float, float] = (0.0, 0.0)

    def __call__(self, text: str, fraction: float) -> None:
        if text != self.current:
            self._close()
            self.current = text
            self.table.setdefault(text, _Phase())
        self.progress(text, fraction)

    def _close(self) -> None:
        now = (time.perf_counter(), time.process_time())
        if self.current:
            phase = self.table[self.current]
            phase.seconds += now[0] - self._since[0]
            phase.processor += now[1] - self._since[1]
            phase.peak = environment.peak_memory_bytes()
        self._since = now

    def as_json(self) -> list[dict[str, Any]]:
        """One row a phase, up to this moment: phase, seconds, processor_seconds (of all threads), peak_memory_bytes.

        The peak is that of the whole process up to the end of the phase: where it grows, that phase needed it.
        """
        self._close()
        return [
            {
                "phase": name,
                "seconds": round(p.seconds, 3),
                "processor_seconds": round(p.processor, 3),
                "peak_memory_bytes": p.peak,
            }
            for name, p in self.table.items()
        ]
