"""Text files as windows of characters."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import numpy.typing as npt

from netsuke.core.errors import FileError, Problem, UsageError
from netsuke.data.dataset import Dataset

HELD_OUT = 0.1  # the last tenth of a file is its test split


def characters(path: str | Path) -> npt.NDArray[np.int64]:
    """The file as ASCII codes [characters]; any other character becomes "?"."""
    file = Path(path)
    try:
        text = file.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise FileError(Problem("the text cannot be read", where=str(path), got=str(error))) from error
    return np.frombuffer(text.encode("ascii", "replace"), np.uint8).astype(np.int64)


def windows(path: str | Path, length: int, split: str) -> Dataset:
    """Consecutive windows of `length` characters as int64 x [N, length]; the targets are the characters themselves.

    split  "train": the first nine tenths of the file, "test": the rest
    """
    if split not in ("train", "test"):
        raise UsageError(Problem("split", str(path), split, "train, test"))
    codes = characters(path)
    border = int(len(codes) * (1 - HELD_OUT))
    part = codes[:border] if split == "train" else codes[border:]
    count = len(part) // length
    if length < 1 or count < 1:
        got = f"{len(part):,} characters in windows of {length}"
        raise UsageError(Problem("the text is too short", str(path), got, "at least one window"))
    return Dataset.from_arrays(part[: count * length].reshape(count, length), source=f"{Path(path).name}:{split}")
