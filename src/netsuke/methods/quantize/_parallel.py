"""Statistics of several tensors at once: NumPy lets go of the interpreter inside its loops."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

MOST = 8  # each thread holds temporaries; more than these would be bound by memory anyway


def threads_of(runner: Any) -> int:
    """As many as the runner of the network uses; where it does not say, one for each core that may be used."""
    asked = getattr(runner, "threads", None)
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return max(1, min(asked or cores, MOST))


def each(function: Callable[[str], object], items: Iterable[str], threads: int) -> None:
    """Call the function on every item, in no order; the first exception by the order of the items is raised.

    The function must touch nothing that the call for another item touches.
    """
    if threads == 1:
        for item in items:
            function(item)
        return
    with ThreadPoolExecutor(threads) as pool:
        for made in [pool.submit(function, item) for item in items]:
            made.result()
