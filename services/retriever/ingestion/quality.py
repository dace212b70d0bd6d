"""Judges whether a text is worth indexing: boilerplate, language, likeness to another. Pure.

Called by `preparing.py` (the text alone) and `duplicates.py` (beside other documents). Thresholds are for documents
of some length: what is short passes.
"""

import re
from collections import Counter
from collections.abc import Iterable
from enum import StrEnum
from functools import cache
from typing import Any

from services.retriever.formats.parsing import ParsedDocument

SHINGLE_WORDS = 5
_MAX_COMPARED_CHARS = 200_000
_MIN_LINES, _MAX_REPEATED_SHARE = 30, 0.7
_MIN_WORDS, _WINDOW_WORDS, _MIN_VARIETY = 300, 1_000, 0.08
_MIN_LINK_CHARS, _MAX_LINK_SHARE = 400, 0.75
_LANGUAGE_SAMPLE_CHARS = 3_000
# Below so many letters the identifier guesses; ideographs say more each.
_MIN_LETTERS, _MIN_IDEOGRAPHS = 120, 40
_CODE_CHARS = 2
_WORD = re.compile(r"\w+")
_IDEOGRAPH = re.compile("[\u3040-\u30ff\u3400-\u9fff\uac00-\ud7af]")


class Flag(StrEnum):
    """What a check noticed."""

    EXACT_DUPLICATE = "exact_duplicate"
    NEAR_DUPLICATE = "near_duplicate"
    BOILERPLATE = "boilerplate"
    GUARDED = "guarded"
    UNEXPECTED_LANGUAGE = "unexpected_language"


class Decision(StrEnum):
    """What becomes of a document that a check noticed."""

    OFF = "off"
    FLAG = "flag"
    REFUSE = "refuse"


def find_boilerplate(document: ParsedDocument) -> str:
    """Why the text is mostly boilerplate, or an empty string."""
    text = document.text[:_MAX_COMPARED_CHARS]
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    if len(lines) >= _MIN_LINES:
        counts = Counter(lines)
        total = sum(len(line) for line in lines)
        repeated = sum(len(line) * (count - 1) for line, count in counts.items())
        if repeated > _MAX_REPEATED_SHARE * total:
            return f"{repeated / total:.0%} of it are lines that stand in it already"
    shown = len(document.text)
    if shown >= _MIN_LINK_CHARS and document.link_chars > _MAX_LINK_SHARE * shown:
        return f"{min(1.0, document.link_chars / shown):.0%} of it is the text of links"
    words = [match.group().lower() for match in _WORD.finditer(text)][:_WINDOW_WORDS]
    if len(words) >= _MIN_WORDS and len(set(words)) < _MIN_VARIETY * len(words):
        return f"its first {len(words)} words are only {len(set(words))} different ones"
    return ""


def find_language(text: str) -> str:
    """The language's ISO 639-1 code, or an empty string where the text is too short to tell.

    By the byte n-grams of langid (Lui and Baldwin, 2012), in its maintained form py3langid.
    """
    middle = max(0, (len(text) - _LANGUAGE_SAMPLE_CHARS) // 2)
    sample = text[middle : middle + _LANGUAGE_SAMPLE_CHARS]
    letters = sum(1 for char in sample if char.isalpha())
    if letters < _MIN_LETTERS and len(_IDEOGRAPH.findall(sample)) < _MIN_IDEOGRAPHS:
        return ""
    language: str = _identify()(sample)[0]
    # Longer codes are of rare languages, for which code and names are easily taken, and `zxx` is of none.
    return language if len(language) == _CODE_CHARS else ""


def shingles(texts: Iterable[str]) -> frozenset[tuple[str, ...]]:
    """All runs of five words of a document, whatever its case and punctuation; of a shorter one, the whole."""
    found: set[tuple[str, ...]] = set()
    room = _MAX_COMPARED_CHARS
    for text in texts:
        words = [match.group().lower() for match in _WORD.finditer(text[:room])]
        room -= len(text)
        last = max(1, len(words) - SHINGLE_WORDS + 1)
        found.update(tuple(words[place : place + SHINGLE_WORDS]) for place in range(last) if words)
        if room <= 0:
            break
    return frozenset(found)


def likeness(one: frozenset[tuple[str, ...]], other: frozenset[tuple[str, ...]]) -> float:
    """Jaccard's coefficient of two sets of shingles, 0 to 1 (Broder, 1997)."""
    union = len(one | other)
    return len(one & other) / union if union else 0.0


@cache
def _identify() -> Any:
    # Loading the model takes a third of a second: once, and only where a text is long enough to be asked about.
    from py3langid.langid import classify  # noqa: PLC0415

    return classify
