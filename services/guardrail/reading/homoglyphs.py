"""Letters that look like ASCII letters, read as those: a Cyrillic `a` in `ignore all` as what it seems to be.

Pure; used by `normalizing.py`. The table is Unicode's of confusable characters, as confusable-homoglyphs ships it, and
the names of small capitals and enclosed letters.
"""

import re
import unicodedata
from collections.abc import Iterator, Mapping
from string import ascii_letters

from confusable_homoglyphs.confusables import confusables_data

from servicekit.domain.verdict import Span
from services.guardrail.reading.edits import Edit

# A run of characters of one class each: linear. Combining marks and enclosed letters are no word characters.
_WORD = re.compile(r"[^\s!-/:-@\[-`{-~]+")
_ASCII_LETTER = re.compile(r"[A-Za-z]")
_NAMED = re.compile(
    r"(?:LATIN LETTER SMALL CAPITAL|(?:NEGATIVE )?(?:SQUARED|CIRCLED) LATIN CAPITAL LETTER"
    r"|REGIONAL INDICATOR SYMBOL LETTER) ([A-Z])"
)
_NAMED_BLOCKS = (range(0x0250, 0x02B0), range(0x1D00, 0x1D80), range(0xA720, 0xA800), range(0x1F130, 0x1F200))


def homoglyph_edits(text: str) -> Iterator[Edit]:
    """Look-alikes in words that mix them with ASCII letters, or consist of them where most letters are ASCII.

    So words of Cyrillic or Greek prose stay as they are. Marks that cover a Latin letter without being part of any
    letter are dropped.
    """
    if text.isascii():
        return
    suspects = [match for match in _WORD.finditer(text) if _seems_disguised(match.group())]
    latin = bool(suspects) and _is_mostly_latin(text)
    for match in suspects:
        if latin or _ASCII_LETTER.search(match.group()):
            for place, char in enumerate(match.group(), match.start()):
                if (shown := _ASCII_LIKENESS.get(char)) is not None:
                    yield Edit(Span(place, place + 1), shown)
                elif unicodedata.category(char) == "Mn":
                    yield Edit(Span(place, place + 1), "")


def _is_mostly_latin(text: str) -> bool:
    latin = len(_ASCII_LETTER.findall(text)) + sum(char in _LATIN_BY_NAME for char in text)
    return 2 * latin > sum(char.isalpha() or char in _LATIN_BY_NAME for char in text)


def _seems_disguised(word: str) -> bool:
    """Whether some of its letters only look like ASCII, or are covered by marks."""
    return not word.isascii() and any(
        char in _ASCII_LIKENESS or unicodedata.category(char) == "Mn" for char in word if not char.isascii()
    )


def _table() -> Mapping[str, str]:
    confusable: Mapping[str, list[Mapping[str, str]]] = confusables_data
    table = {
        entry["c"]: "I" if letter == "l" and entry["c"].isupper() else letter
        for letter in ascii_letters
        for entry in confusable[letter]
        if len(entry["c"]) == 1 and not entry["c"].isascii() and not entry["c"].isdecimal()
    }
    return {**table, **_LATIN_BY_NAME}


_LATIN_BY_NAME: Mapping[str, str] = {
    char: named[1].lower()
    for block in _NAMED_BLOCKS
    for char in map(chr, block)
    if (named := _NAMED.fullmatch(unicodedata.name(char, "")))
}
_ASCII_LIKENESS = _table()
