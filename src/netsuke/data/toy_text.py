"""Toy language, made from a seed: sentences with a sentiment and a topic, and a translation into a second toy language.

    clause     DET NOUN VERB [not] [ADVERB] ADJECTIVE [and ADJECTIVE]      adjectives of a clause share their polarity
    sentence   clause, or clause but clause                                 nouns of a sentence share their topic

The sentiment of a sentence is that of its last clause, "not" turning it round: no bag of words tells it. A
translation puts the verb first, and the adjectives behind their noun, which takes an article that agrees with it.
Word 0 pads.

A passage is a bag of words about one of four topics in one of four moods, which nothing but the company of its words
tells: what a network may learn from plain text before it sees a label.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from netsuke.core.seeds import generator

Ids = npt.NDArray[np.int64]

TOPICS, NOUNS, ADJECTIVES, ADVERBS, DETERMINERS, VERBS = 4, 6, 10, 4, 2, 3
PAD, MASK, BUT, NOT, AND, START, END = range(7)
_FIRST = 7
NOUN = _FIRST  # TOPICS * NOUNS words, topic by topic
GOOD = NOUN + TOPICS * NOUNS
BAD = GOOD + ADJECTIVES
ADVERB = BAD + ADJECTIVES
DETERMINER = ADVERB + ADVERBS
VERB = DETERMINER + DETERMINERS
WORDS = VERB + VERBS
LENGTH = 16  # two clauses of at most eight words, "but" between them cut to fit


@dataclass(frozen=True)
class Sentences:
    """ids [N, LENGTH], sentiment [N] in 0, 1 and topic [N] in 0 .. TOPICS - 1."""

    ids: Ids
    sentiment: Ids
    topic: Ids


def _clause(rng: np.random.Generator, topic: int, most: int) -> tuple[list[int], int]:
    """Words, at most `most` of them, and the polarity that they say."""
    good, turned = int(rng.integers(2)), bool(rng.integers(2))
    adjectives = (GOOD if good else BAD) + rng.permutation(ADJECTIVES)[:2]
    words = [DETERMINER + int(rng.integers(DETERMINERS)), NOUN + topic * NOUNS + int(rng.integers(NOUNS))]
    words.append(VERB + int(rng.integers(VERBS)))
    words += [NOT] if turned else []
    words += [ADVERB + int(rng.integers(ADVERBS))] if rng.random() < 0.4 else []
    words.append(int(adjectives[0]))
    if rng.random() < 0.5 and len(words) + 2 <= most:
        words += [AND, int(adjectives[1])]
    return words, good ^ int(turned)


def sentences(count: int, seed: int = 0) -> Sentences:
    """`count` sentences drawn with the seed."""
    rng = generator(seed, "data.toy_text")
    ids = np.zeros((count, LENGTH), np.int64)
    sentiment, topics = np.zeros(count, np.int64), np.zeros(count, np.int64)
    for row in range(count):
        topic = int(rng.integers(TOPICS))
        words, said = _clause(rng, topic, 8)
        if rng.random() < 0.5:
            more, said = _clause(rng, topic, LENGTH - len(words) - 1)
            words = [*words, BUT, *more]
        ids[row, : len(words)], sentiment[row], topics[row] = words, said, topic
    return Sentences(ids, sentiment, topics)


def masked(ids: Ids, seed: int, share: float = 0.2) -> tuple[Ids, Ids]:
    """(ids with a share of the words replaced by MASK, the words at those places and -100 elsewhere)."""
    hidden = (generator(seed, "data.toy_text.mask").random(ids.shape) < share) & (ids != PAD)
    return np.where(hidden, MASK, ids), np.where(hidden, ids, -100)


GROUPS, GROUP_WORDS = 4, 20  # topics, moods, and the words of each
STRAY = 0.1  # words of a passage that belong to any group
PASSAGE_WORDS = 2 + 2 * GROUPS * GROUP_WORDS  # PAD, MASK, the words of the topics, those of the moods


@dataclass(frozen=True)
class Passages:
    """ids [N, LENGTH], topic [N] and mood [N] in 0 .. GROUPS - 1."""

    ids: Ids
    topic: Ids
    mood: Ids


def passages(count: int, seed: int = 0) -> Passages:
    """`count` passages drawn with the seed: half of the words are the topic's, half the mood's."""
    rng = generator(seed, "data.toy_text.passages")
    topic, mood = rng.integers(GROUPS, size=count), rng.integers(GROUPS, size=count)
    shape = (count, LENGTH)
    group = np.where(rng.random(shape) < 0.5, topic[:, None], GROUPS + mood[:, None])
    group = np.where(rng.random(shape) < STRAY, rng.integers(2 * GROUPS, size=shape), group)
    return Passages(2 + group * GROUP_WORDS + rng.integers(GROUP_WORDS, size=shape), topic, mood)


# The second language: the same number of words behind an offset of its own, and one article a gender.
TARGET_WORDS = WORDS + 3
ARTICLE = WORDS  # 3 genders
SOURCE_LENGTH, TARGET_LENGTH = 11, 13


@dataclass(frozen=True)
class Translations:
    """source [N, SOURCE_LENGTH], target [N, TARGET_LENGTH]: START, words, END, PAD."""

    source: Ids
    target: Ids


def _phrase(rng: np.random.Generator) -> tuple[list[int], list[int]]:
    noun = int(rng.integers(TOPICS * NOUNS))
    adjectives = [int(a) for a in rng.permutation(2 * ADJECTIVES)[: int(rng.integers(1, 3))]]
    said = [DETERMINER, *[GOOD + a for a in adjectives], NOUN + noun]
    # Words of the second language: the same classes, another order of words within them.
    told = [ARTICLE + noun % 3, NOUN + (5 * noun + 2) % (TOPICS * NOUNS)]
    return said, [*told, *[GOOD + (7 * a + 3) % (2 * ADJECTIVES) for a in adjectives]]


def translations(count: int, seed: int = 0) -> Translations:
    """`count` pairs: subject verb object, into verb subject object."""
    rng = generator(seed, "data.toy_text.translations")
    source = np.zeros((count, SOURCE_LENGTH), np.int64)
    target = np.zeros((count, TARGET_LENGTH), np.int64)
    for row in range(count):
        (subject, told_subject), (thing, told_thing) = _phrase(rng), _phrase(rng)
        verb, turned = int(rng.integers(VERBS)), bool(rng.integers(2))
        said = [*subject, VERB + verb, *([NOT] if turned else []), *thing]
        told = [START, VERB + (verb + 1) % VERBS, *([NOT] if turned else []), *told_subject, *told_thing, END]
        source[row, : len(said)] = said[:SOURCE_LENGTH]
        target[row, : len(told)] = told[:TARGET_LENGTH]
    return Translations(source, target)
