"""Labelled sentences from a file, and the words they are made of: lines "sentence<TAB>label", as SST-2 comes."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from netsuke.core.errors import FileError, Problem

PAD, UNKNOWN = 0, 1


def read_sentences(path: str | Path) -> tuple[list[list[str]], npt.NDArray[np.int64]]:
    """(words of each sentence, labels [N]). FileError naming every line that is not "sentence<TAB>0 or 1 ..."."""
    file = Path(path)
    if not file.is_file():
        raise FileError(Problem("no such file of sentences", got=str(path)))
    rows, labels, problems = [], [], []
    for number, line in enumerate(file.read_text(encoding="utf-8").splitlines(), 1):
        text, tab, label = line.rpartition("\t")
        if not tab or not label.isdigit() or not text.split():
            problems.append(Problem("not a sentence, a tab and a label", f"{file.name}, line {number}", line[:60]))
            continue
        rows.append(text.split())
        labels.append(int(label))
    if problems:
        raise FileError(problems[:20])
    if not rows:
        raise FileError(Problem("the file holds no sentence", where=file.name))
    return rows, np.asarray(labels, np.int64)


@dataclass(frozen=True)
class Vocabulary:
    """Words by id: 0 pads, 1 stands for every word that is not listed."""

    ids: dict[str, int]

    @classmethod
    def of(cls, rows: list[list[str]], size: int) -> Vocabulary:
        """The `size - 2` most frequent words; ties in alphabetical order."""
        counts = Counter(word for row in rows for word in row)
        ranked = sorted(counts.items(), key=lambda item: (-item[1], item[0]))
        return cls({word: i + 2 for i, (word, _) in enumerate(ranked[: size - 2])})

    def encode(self, rows: list[list[str]], length: int) -> npt.NDArray[np.int64]:
        """[N, length]: the first words of each sentence, padded."""
        result = np.full((len(rows), length), PAD, np.int64)
        for i, row in enumerate(rows):
            found = [self.ids.get(word, UNKNOWN) for word in row[:length]]
            result[i, : len(found)] = found
        return result
