"""Toy sentences keep their grammar; labelled sentences are read as they are, or refused by line."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from netsuke.core.errors import FileError
from netsuke.data import toy_text as t
from netsuke.data.sentences import UNKNOWN, Vocabulary, read_sentences


def test_sentiment_is_that_of_the_last_clause_turned_by_not() -> None:
    made = t.sentences(500, 3)
    for ids, sentiment, topic in zip(made.ids.tolist(), made.sentiment, made.topic, strict=True):
        words = [w for w in ids if w]
        assert ids[: len(words)] == words  # padding at the end only
        last = words[words.index(t.BUT) + 1 :] if t.BUT in words else words
        good = [w < t.BAD for w in last if t.GOOD <= w < t.ADVERB]
        assert len(set(good)) == 1
        assert sentiment == (good[0] ^ (t.NOT in last))
        nouns = [w - t.NOUN for w in words if t.NOUN <= w < t.GOOD]
        assert {n // t.NOUNS for n in nouns} == {topic}
    assert np.array_equal(made.ids, t.sentences(500, 3).ids)
    assert not np.array_equal(made.ids, t.sentences(500, 4).ids)
    assert 0.4 < made.sentiment.mean() < 0.6


def test_masks_hide_words_and_never_padding() -> None:
    ids = t.sentences(200, 0).ids
    hidden, words = t.masked(ids, 1)
    assert np.array_equal(hidden == t.MASK, words >= 0)
    assert np.array_equal(words[words >= 0], ids[words >= 0])
    assert (ids[words >= 0] != t.PAD).all()
    assert 0.15 < (words >= 0).sum() / (ids != t.PAD).sum() < 0.25


def test_the_words_of_a_passage_are_those_of_its_topic_and_its_mood() -> None:
    made = t.passages(2000, 5)
    assert made.ids.shape == (2000, t.LENGTH)
    assert made.ids.min() >= 2
    assert made.ids.max() < t.PASSAGE_WORDS
    group = (made.ids - 2) // t.GROUP_WORDS
    told = (group == made.topic[:, None]) | (group == t.GROUPS + made.mood[:, None])
    assert 1 - t.STRAY - 0.01 < told.mean() < 1 - t.STRAY / 2  # a stray word may fall into one of the two groups
    assert np.array_equal(made.ids, t.passages(2000, 5).ids)
    for labels in (made.topic, made.mood):
        assert np.bincount(labels, minlength=t.GROUPS).min() > 400


def test_a_translation_is_a_function_of_its_source() -> None:
    made = t.translations(2000, 0)
    seen: dict[tuple[int, ...], tuple[int, ...]] = {}
    for source, target in zip(made.source.tolist(), made.target.tolist(), strict=True):
        assert seen.setdefault(tuple(source), tuple(target)) == tuple(target)
        assert target[0] == t.START
        assert t.END in target
        assert sum(w >= t.ARTICLE for w in target) == 2
        assert max(target) < t.TARGET_WORDS


def test_reading_labelled_sentences(tmp_path: Path) -> None:
    file = tmp_path / "train.tsv"
    file.write_text("a fine film\t1\na dull film\t0")
    rows, labels = read_sentences(file)
    assert rows == [["a", "fine", "film"], ["a", "dull", "film"]]
    assert labels.tolist() == [1, 0]
    vocabulary = Vocabulary.of(rows, 4)
    assert vocabulary.ids == {"a": 2, "film": 3}
    assert vocabulary.encode(rows, 5).tolist() == [[2, UNKNOWN, 3, 0, 0], [2, UNKNOWN, 3, 0, 0]]


@pytest.mark.parametrize(
    ("text", "words"), [("fine 1\nno label\t\n\t1", "line 1"), ("", "no sentence"), ("good\tgood", "line 1")]
)
def test_wrong_lines_are_named(tmp_path: Path, text: str, words: str) -> None:
    file = tmp_path / "x.tsv"
    file.write_text(text)
    with pytest.raises(FileError, match=words):
        read_sentences(file)
    with pytest.raises(FileError, match="no such file"):
        read_sentences(tmp_path / "none.tsv")
