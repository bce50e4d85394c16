"""The `Claim` record: a small program that checks what a paper claims.

`measure(context, seed)` runs one seed and returns an `Outcome`: exact parts (name -> held?) and figures (name ->
number). The rule is declarative: every exact part must hold on every seed; every `Compare` tests a difference of
means over seeds against a margin.
"""

from __future__ import annotations

import importlib
import pkgutil
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

from netsuke.core.errors import FileError, Problem, UsageError, near

PASSES, FAILS, NOT_REPRODUCED = "passes", "fails", "not reproduced at this scale"


@dataclass(frozen=True)
class Outcome:
    """What one seed gave. curves: name -> one number an epoch (or step), kept in the result and drawn, not judged."""

    exact: dict[str, bool] = field(default_factory=dict)
    figures: dict[str, float] = field(default_factory=dict)
    curves: dict[str, list[float]] = field(default_factory=dict)


@dataclass(frozen=True)
class Compare:
    """mean(figure) - mean(baseline) >= margin, over seeds. `baseline` is another figure, or "" for zero.

    clear  the difference must also be larger than its spread over seeds: for claims that one thing beats another
    """

    figure: str
    baseline: str = ""
    margin: float = 0.0
    clear: bool = False

    def __str__(self) -> str:
        left = f"{self.figure} - {self.baseline}" if self.baseline else self.figure
        return f"mean({left}) >= {self.margin:g}" + " + spread" * self.clear


class Context(Protocol):
    """What a claim may use while it runs."""

    data_root: Path | None

    def progress(self, text: str) -> None: ...


@dataclass(frozen=True)
class Claim:
    """One executable claim.

    id         "paper-id" or "paper-id/part"
    paper      id of the ledger row
    sentence   what is checked, in one sentence
    baseline   what the figure is compared with, named
    minutes    expected duration on two cores
    seeds      run by default
    data       data sets it needs besides what ships ("cifar10", "fashion-mnist"); empty: runs anywhere
    methods    Method records it exercises
    """

    id: str
    paper: str
    sentence: str
    baseline: str
    measure: Callable[[Context, int], Outcome]
    compares: tuple[Compare, ...] = ()
    seeds: tuple[int, ...] = (0, 1, 2)
    minutes: float = 1.0
    data: tuple[str, ...] = ()
    methods: tuple[str, ...] = ()


_CLAIMS: dict[str, Claim] = {}


def register(claim: Claim) -> Claim:
    """Add a claim; a second one of the same id is a programming error."""
    if claim.id in _CLAIMS:
        raise ValueError(f"claim {claim.id!r} is registered twice")
    _CLAIMS[claim.id] = claim
    return claim


def claims() -> dict[str, Claim]:
    """All claims by id, sorted."""
    import netsuke.papers.claims as room

    for module in pkgutil.iter_modules(room.__path__, room.__name__ + "."):
        if not module.name.rpartition(".")[2].startswith("_"):
            importlib.import_module(module.name)
    return dict(sorted(_CLAIMS.items()))


def find_claim(claim_id: str) -> Claim:
    """The claim of that id; UsageError with near ids when there is none."""
    table = claims()
    if claim_id not in table:
        raise UsageError(
            Problem("unknown claim", got=claim_id, allowed=near(claim_id, table), hint="netsuke claim list")
        )
    return table[claim_id]


# Which files a data set consists of, below the data root, and what can serve when they are missing.
DATA_FILES = {
    "cifar10": ("cifar10/train_20k.npz", "cifar10/test_1k.npz"),
    "fashion-mnist": ("fashion_mnist/train-images-idx3-ubyte.gz", "fashion_mnist/t10k-images-idx3-ubyte.gz"),
    "sst2": ("text/sst2/train.tsv", "text/sst2/dev.tsv"),
    "tinyshakespeare": ("text/tinyshakespeare.txt",),
}


def require_data(claim: Claim, data_root: Path | None) -> None:
    """FileError listing every file the claim needs and does not find."""
    problems = [
        Problem(
            f"the claim needs the data set {name}",
            where=claim.id,
            got=f"no file {file} under {data_root or 'a data root (none was given)'}",
            hint="--data-root DIR or NETSUKE_DATA; claims without `data` in `netsuke claim list` run on what ships",
        )
        for name in claim.data
        for file in DATA_FILES[name]
        if data_root is None or not (data_root / file).is_file()
    ]
    if problems:
        raise FileError(problems)
