"""Freed memory stays with the process while it trains, and goes back afterwards."""

from __future__ import annotations

import ctypes
import subprocess
import sys
from collections.abc import Iterator
from typing import Any

import pytest
import torch
from torch import nn

import netsuke
from netsuke.core.errors import UsageError
from netsuke.nn import kept_memory as memory
from netsuke.nn.integer_swap import integer_

needs_glibc = pytest.mark.skipif(
    memory.glibc() is None or not memory.allowed(), reason="another C library, or forbidden"
)


@pytest.fixture(autouse=True)
def _as_before() -> Iterator[None]:
    before = memory.memory_is_kept()
    memory.keep_memory(False)
    yield
    memory.keep_memory(before)


FAULTS = """
import resource, torch
from netsuke.nn import kept_memory as memory
torch.set_num_threads(1)

def faults(block=40 << 20):
    counts = []
    for _ in range(16):
        before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
        torch.zeros(block // 4)
        counts.append(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
    return counts

found = [min(faults()), memory.keep_memory(), min(faults()), memory.keep_memory(), memory.keep_memory(False)]
print((40 << 20) // resource.getpagesize(), *map(int, found), faults()[0])
"""


@needs_glibc
def test_large_blocks_are_used_again_and_given_back() -> None:
    """Fewest page faults of a tensor that glibc maps anew by default, of 16 in turn: an aligned block wants a few
    bytes more than the hole its like left, so that some of the first still grow the heap. The first alone tells whether
    memory went back: a hole inside the heap, its pages gone, may serve the others. In a process of its own: blocks of
    other threads than the first come from arenas of 64 MB, which glibc gives back all the same."""
    done = subprocess.run([sys.executable, "-c", FAULTS], capture_output=True, text=True, check=True)
    pages, before, kept, during, again, off, after = map(int, done.stdout.split())
    if before < pages // 2:
        pytest.skip("huge pages: nothing to see")
    assert (kept, again, off) == (1, 1, 0)  # a second call changes nothing
    assert during < pages // 20
    assert after > pages // 2


@needs_glibc
def test_integer_layers_keep_memory_and_the_block_restores() -> None:
    integer_(nn.Sequential(nn.Linear(8, 4)))
    assert memory.memory_is_kept()
    with memory.kept_memory(False):
        assert not memory.memory_is_kept()
    assert memory.memory_is_kept()


@needs_glibc
@pytest.mark.parametrize("wanted", [True, False])
def test_a_training_run_keeps_memory_while_it_runs(wanted: bool) -> None:
    seen = []

    def loss(a: Any, b: Any) -> Any:
        seen.append(memory.memory_is_kept())
        return nn.functional.cross_entropy(a, b)

    x, y = torch.randn(32, 16), torch.arange(32) % 4
    netsuke.train(nn.Sequential(nn.Linear(16, 4)), (x, y), options={"l1_norm": False}, batch=16, loss=loss,
                  progress=False, keep_memory=wanted)  # fmt: skip
    assert seen == [wanted, wanted]
    assert not memory.memory_is_kept()


def test_the_environment_decides(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in (
        (memory.VARIABLE, "0"),
        ("MALLOC_MMAP_MAX_", "0"),
        ("GLIBC_TUNABLES", "glibc.malloc.trim_threshold=1"),
    ):
        with monkeypatch.context() as patch:
            patch.setenv(name, value)
            assert not memory.keep_memory()
    with monkeypatch.context() as patch:
        patch.setenv(memory.VARIABLE, "yes")
        with pytest.raises(UsageError, match=memory.VARIABLE):
            memory.keep_memory()


def test_another_c_library_is_left_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ctypes, "CDLL", lambda _name: object())
    assert memory.glibc() is None
    assert not memory.keep_memory()
