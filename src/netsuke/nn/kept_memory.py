"""Freed memory stays with the process while it trains: a setting of the C library. Loads no torch.

glibc maps every block above 32 MB anew and gives it back when it is freed, and the kernel zeroes it page by page: every
operator on a large activation pays 8,000 page faults for 32 MB. `keep_memory()` has such blocks taken from the heap,
which is never trimmed, so that the next step finds the last one's pages. The process then keeps its peak until
`keep_memory(False)`, which gives free pages back. Figures: bench/README.md, "Training". This holds for the thread that
started the process: blocks of other threads come from arenas of 64 MB, which glibc unmaps as soon as they are empty.

Other C libraries, and a process whose user set MALLOC_MMAP_MAX_, MALLOC_TRIM_THRESHOLD_ or the tunables of their names,
are left alone; so is every process with NETSUKE_KEEP_MEMORY=0.
"""

from __future__ import annotations

import ctypes
import os
from collections.abc import Iterator
from contextlib import contextmanager

from netsuke.core.errors import Problem, UsageError

VARIABLE = "NETSUKE_KEEP_MEMORY"
_TRIM_THRESHOLD, _MMAP_MAX = -1, -4  # of mallopt
_DEFAULT_TRIM, _DEFAULT_MMAP_MAX = 128 << 10, 65536
_THEIRS = ("MALLOC_MMAP_MAX_", "MALLOC_TRIM_THRESHOLD_", "glibc.malloc.mmap_max", "glibc.malloc.trim_threshold")

_kept = False


def glibc() -> ctypes.CDLL | None:
    """The process's C library when it is glibc."""
    try:
        library = ctypes.CDLL(None)
        library.gnu_get_libc_version, library.mallopt, library.malloc_trim  # noqa: B018
    except (OSError, AttributeError, TypeError):
        return None
    return library


def allowed() -> bool:
    """Whether the environment lets the setting be changed. Raises UsageError for a value of NETSUKE_KEEP_MEMORY that
    is neither 0 nor 1."""
    word = os.environ.get(VARIABLE, "1") or "1"
    if word not in ("0", "1"):
        raise UsageError(Problem("not a switch", VARIABLE, word, "0 or 1"))
    tunables = os.environ.get("GLIBC_TUNABLES", "")
    return word == "1" and not any(name in os.environ or name in tunables for name in _THEIRS)


def memory_is_kept() -> bool:
    """Whether `keep_memory` is in effect."""
    return _kept


def keep_memory(on: bool = True) -> bool:
    """Keep freed memory for the next step, or (False) go back to glibc's defaults and give free pages back to the
    system. Returns whether memory is kept now: False where there is no glibc or the environment forbids it."""
    global _kept
    library = glibc() if on != _kept and (allowed() or not on) else None
    if library is None:
        return _kept
    pairs = (
        ((_MMAP_MAX, 0), (_TRIM_THRESHOLD, -1))
        if on
        else ((_MMAP_MAX, _DEFAULT_MMAP_MAX), (_TRIM_THRESHOLD, _DEFAULT_TRIM))
    )
    if all(library.mallopt(ctypes.c_int(name), ctypes.c_int(value)) == 1 for name, value in pairs):
        _kept = on
    if not on:
        library.malloc_trim(ctypes.c_size_t(0))
    return _kept


@contextmanager
def kept_memory(on: bool = True) -> Iterator[None]:
    """The setting for the time of a block; what it was before afterwards."""
    before = _kept
    keep_memory(on)
    try:
        yield
    finally:
        keep_memory(before)
