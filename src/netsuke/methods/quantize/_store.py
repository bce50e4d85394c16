"""Statistics of a calibration that can be taken up again: by the next stage of one run, or by a resumed run."""

from __future__ import annotations

import json
import time
import zipfile
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from netsuke.methods.quantize._graph import Array
from netsuke.methods.quantize._statistics import Statistics

State = Mapping[str, Array]
SECONDS = 10.0  # between two writes to disk: a run that is killed loses at most this much


@dataclass
class Store:
    """Statistics by tensor after `done` samples; `key` says of what: another key finds nothing.

    path  a file that keeps them beyond the process, written at most every 10 seconds and at the end; None: memory only
    """

    path: Path | None = None
    key: str = ""
    done: int = 0
    states: dict[str, State] = field(default_factory=dict)
    written: float = field(default_factory=time.monotonic)

    def restore(self, key: str, wanted: Mapping[str, Statistics]) -> int:
        """Set the wanted statistics to what is stored; the samples they have seen, 0 when something is missing."""
        if self.path is not None and not self.states:
            self._read(self.path)
        fits = self.key == key and all(
            name in self.states and statistics.accepts(self.states[name]) for name, statistics in wanted.items()
        )
        if not fits:
            return 0
        for name, statistics in wanted.items():
            statistics.set_state(self.states[name])
        return self.done

    def keep(self, key: str, done: int, statistics: Mapping[str, Statistics], *, last: bool) -> None:
        """Take over the statistics at the end (`last`), and from time to time before that where a file keeps them."""
        due = self.path is not None and time.monotonic() - self.written > SECONDS
        if not last and not due:
            return
        self.key, self.done = key, done
        self.states = {name: entry.state() for name, entry in statistics.items()}
        self.written = time.monotonic()
        if self.path is not None:
            self._write(self.path)

    def _write(self, path: Path) -> None:
        names = sorted(self.states)
        arrays = {f"{i}.{k}": a for i, name in enumerate(names) for k, a in self.states[name].items()}
        part = path.with_suffix(".part.npz")
        np.savez(part, head=np.array(json.dumps({"key": self.key, "done": self.done, "names": names})), **arrays)  # type: ignore[arg-type]
        part.rename(path)  # whole or absent

    def _read(self, path: Path) -> None:
        try:
            with np.load(path, allow_pickle=False) as found:
                head = json.loads(str(found["head"]))
                states: dict[str, dict[str, Array]] = {name: {} for name in head["names"]}
                for entry in found.files:
                    index, _, part = entry.partition(".")
                    if part:
                        states[head["names"][int(index)]][part] = found[entry]
        except (OSError, ValueError, KeyError, zipfile.BadZipFile):
            return  # nothing was stored, or it is damaged: calibration starts again
        self.key, self.done, self.states = str(head["key"]), int(head["done"]), dict(states)
