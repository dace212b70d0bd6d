"""Sentences with their places, and the content terms that a comparison of texts counts.

Pure; used by the extractive engine, the groundedness detector and the evaluator.
"""

import re
from dataclasses import dataclass
from functools import lru_cache

import snowballstemmer
from sentencex import get_sentence_boundaries

_WORD = re.compile(r"[^\W_]+(?:['’][^\W_]+)*", re.UNICODE)  # noqa: RUF001  # an apostrophe as people type it
_STEMMER = snowballstemmer.stemmer("english")
_LONGEST_WORD = 64
STOP_WORDS = frozenset(
    """
    a an and are as at be been but by can could did do does for from had has have he her his how i if in into is it
    its may me might must my no nor not of on or our shall she should so than that the their them then there these
    they this those to was we were what when where which while who whom whose why will with would you your
    """.split()  # noqa: SIM905  # reads as text
)


@dataclass(frozen=True, slots=True)
class Sentence:
    """One sentence, stripped, with its character offsets in the text it came from (`text[start:end]`)."""

    text: str
    start: int
    end: int


def split_sentences(text: str, *, language: str = "en") -> tuple[Sentence, ...]:
    """Sentences in order, without the blank space around them; paragraph breaks yield none."""
    found = []
    position = 0
    for boundary in get_sentence_boundaries(language, text):
        raw = boundary["text"]
        stripped = raw.strip()
        if stripped:
            start = text.index(stripped, position)
            found.append(Sentence(stripped, start, start + len(stripped)))
            position = start + len(stripped)
    return tuple(found)


def stem(word: str) -> str:
    """The Snowball (English) stem of a lower-cased word; a word too long to be one stays as it is.

    The stemmer's time grows with the square of the length: a minute for a word of 60,000 letters.
    """
    return _stem(word) if len(word) <= _LONGEST_WORD else word


@lru_cache(maxsize=65_536)
def _stem(word: str) -> str:
    return str(_STEMMER.stemWord(word))


def content_terms(text: str) -> tuple[str, ...]:
    """Lower-cased, stemmed words in order, without stop words; numbers and identifiers stay."""
    words = (match.group().lower() for match in _WORD.finditer(text))
    return tuple(stem(word) for word in words if word not in STOP_WORDS)
