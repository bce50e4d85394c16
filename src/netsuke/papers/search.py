"""Ranking of ledger rows: BM25 over id, name, title, claim and works_when.

Okapi BM25 (Robertson and Zaragoza 2009): score(q, d) = sum over terms of idf(t) * f (k1 + 1) / (f + k1 (1 - b + b |d|
/ avg|d|)), idf(t) = ln(1 + (N - n + 1/2) / (n + 1/2)), k1 = 1.5, b = 0.75. 362 short rows: an index is built in
milliseconds at first use.
"""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Sequence

from netsuke.papers.ledger import Row

_K1, _B = 1.5, 0.75
# fmt: off
_STOP = frozenset((
    "a", "an", "and", "are", "as", "at", "be", "by", "for", "from", "in", "is", "it", "its", "of", "on", "or", "that",
    "the", "their", "this", "to", "when", "with", "without",
))
# fmt: on


def terms(text: str) -> list[str]:
    """Lower-case words with a crude stem: plural s, -ing, -ed, and the British -is- of -ise, -isation."""
    words = []
    for word in re.findall(r"[a-z0-9]+", text.lower()):
        if word in _STOP:
            continue
        word = re.sub(r"is(e|ed|es|ing|ation|ations)$", r"iz\1", word) if len(word) > 6 else word
        for suffix in ("ations", "ation", "ings", "ing", "ers", "er", "ed", "es", "s", "e"):
            if word.endswith(suffix) and len(word) - len(suffix) >= 4:
                word = word[: -len(suffix)]
                break
        words.append(word)
    return words


class Index:
    """BM25 over a list of rows."""

    def __init__(self, rows: Sequence[Row]) -> None:
        self.rows = list(rows)
        self.counts = [Counter(terms(row.text)) for row in self.rows]
        self.lengths = [sum(count.values()) for count in self.counts]
        self.mean_length = sum(self.lengths) / max(1, len(self.lengths))
        self.document_frequency = Counter(term for count in self.counts for term in count)

    def _idf(self, term: str) -> float:
        n = self.document_frequency[term]
        return math.log(1 + (len(self.rows) - n + 0.5) / (n + 0.5))

    def scores(self, query: Counter[str]) -> list[float]:
        """One score a row; terms of the query weigh by their count."""
        result = []
        for count, length in zip(self.counts, self.lengths, strict=True):
            norm = _K1 * (1 - _B + _B * length / self.mean_length)
            result.append(
                sum(w * self._idf(t) * count[t] * (_K1 + 1) / (count[t] + norm) for t, w in query.items() if t in count)
            )
        return result

    def search(self, query: str) -> list[tuple[Row, float]]:
        """Rows with a positive score, best first. An exact id or name comes before everything else."""
        wanted = query.strip().lower()
        ranked = [
            (row, score + (1000.0 if wanted in (row.id.lower(), row.name.lower()) else 0.0))
            for row, score in zip(self.rows, self.scores(Counter(terms(query))), strict=True)
        ]
        return sorted((item for item in ranked if item[1] > 0), key=lambda item: (-item[1], item[0].id))

    def similar(self, row: Row, count: int = 8) -> list[tuple[Row, float]]:
        """The rows nearest to `row`, its own text used as the query, without itself."""
        ranked = zip(self.rows, self.scores(Counter(set(terms(row.text)))), strict=True)
        others = [(other, score) for other, score in ranked if other.id != row.id]
        return sorted(others, key=lambda item: (-item[1], item[0].id))[:count]
