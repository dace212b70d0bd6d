"""Words spelled with digits and signs, or letter by letter, read: `1gn0r3`, `i g n o r e`. Pure; see `disguises.py`."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import islice

from servicekit.domain.verdict import Span
from services.guardrail.linear import LinearPattern, LinearSet
from services.guardrail.reading.edits import Edit
from services.guardrail.reading.letter_pairs import bits_per_letter

_SIGN = r"[0134578@$!|+]"
_LEET = rf"(?:[A-Za-z]+{_SIGN}|{_SIGN}+[A-Za-z])[A-Za-z0-9@$!|+]*"
_GAPS = (" ", r"\.", "-", "_", r"\*", r"\|", ",", "/", "~")
_SPACED = r"\b(?:" + "|".join(rf"[A-Za-z](?:{gap}[A-Za-z]){{1,}}" for gap in _GAPS) + r")\b"
_LEET_WORD, _SPACED_WORD = LinearPattern(_LEET), LinearPattern(_SPACED)
_ANY = LinearSet((_LEET, _SPACED))
_READINGS = tuple(
    str.maketrans("0134578@$!|+", letters) for letters in ("oieastbasilt", "oleastbasilt", "oieasgbasiit")
)
_SHORTEST, _SHORT = 2, 3
"""Words of two or three letters, and words whose signs all stand behind (`python3`), are read where others are, too."""
_LONGEST = 40
_MOST_WORDS = 4_000
_MOST_BITS = 4.6
_MOST_BITS_SPACED = 5.0


@dataclass(frozen=True, slots=True)
class _Word:
    """A word that can be read, and whether it is no coincidence."""

    edit: Edit
    sure: bool


def spelling_edits(text: str) -> Iterator[Edit]:
    """Words that read as English once their signs are read as letters, and runs of single letters joined."""
    for kind in _ANY.matching(text):
        words = list(islice(_spaced(text) if kind else _leet(text), _MOST_WORDS))
        if any(word.sure for word in words):
            yield from (word.edit for word in words)


def _leet(text: str) -> Iterator[_Word]:
    for span in islice(_LEET_WORD.spans(text), _MOST_WORDS):
        written = text[span.start : span.end].rstrip("!|+")
        word = Span(span.start, span.start + len(written))
        letters = sum(map(str.isalpha, written))
        if _SHORTEST <= len(written) <= min(_LONGEST, 2 * letters) and not _is_part(text, word):
            readings = {read for read in map(written.translate, _READINGS) if read.isalpha() and read != written}
            best = _most_probable(readings)
            if best and bits_per_letter(best) <= _MOST_BITS:
                yield _Word(Edit(word, best, exact=True), _is_odd(written, best))


def _is_odd(written: str, read: str) -> bool:
    """Signs inside a word, or one digit in front: not `python3`, `@name`, `50th`, `Conv3d`."""
    middle = written.strip("0123456789@$!|+")
    inside = not middle.isalpha() or (written[0].isdigit() and written[1].isalpha())
    return len(read) > _SHORT and inside and (read.islower() or read.isupper() or read.istitle())


def _most_probable(readings: Iterable[str]) -> str:
    return min(sorted(readings), key=bits_per_letter, default="")


def _is_part(text: str, word: Span) -> bool:
    """Glued to what belongs to an address, a path or a number."""
    around = text[word.start - 1 : word.start] + text[word.end : word.end + 1]
    if text[word.end : word.end + 1] == "." and text[word.end + 1 : word.end + 2].isalnum():
        return True
    return any(char in "/\\=&?%#_@:" or char.isalnum() for char in around)


def _spaced(text: str) -> Iterator[_Word]:
    """Letters with one sign between all of them; two blanks, or another sign, part the words."""
    for span in _SPACED_WORD.spans(text):
        letters = text[span.start : span.end : 2]
        if bits_per_letter(letters) <= _MOST_BITS_SPACED:
            yield _Word(Edit(span, letters), len(letters) > _SHORT)
