"""What a sentence states: its words by weight, its numbers, names and identifiers, its sign, the opposites in it.

Pure; what `grounding.py` compares of an answer and its chunks. English; other languages are compared word by word.
"""

import re
from collections.abc import Iterator
from dataclasses import dataclass

from servicekit.domain.opposites import opposites_of
from servicekit.domain.sentences import STOP_WORDS, stem

_APOSTROPHE = "\u2019"
TOKEN = re.compile(r"[^\W_]+(?:['\u2019][^\W_]+)*")
_NUMBER = re.compile(r"(?<![\w.])\d+(?:[.,]\d+)*")
_NAME = re.compile(r"[\w.]+")
_IDENTIFIER = re.compile(r"[A-Za-z_]\w*(?:\.[A-Za-z_]\w*)+|\w*[A-Za-z0-9]_\w+|[a-z]+[A-Z]\w*")
_LONGEST_NAME = 128
_ABBREVIATION = re.compile(r"(?:[A-Za-z]\.)+[A-Za-z]")
_ORDINAL = re.compile(r"(\d+)(?:st|nd|rd|th)")
_UNITS = ("two", "three", "four", "five", "six", "seven", "eight", "nine", "ten", "eleven", "twelve")
_TENS = ("twenty", "thirty", "forty", "fifty", "sixty", "seventy", "eighty", "ninety")
_SPELLED_NUMBERS = {word: str(value) for value, word in enumerate(_UNITS, 2)} | {
    word: str(value * 10) for value, word in enumerate(_TENS, 2)
}
_NEGATIONS = frozenset(
    ("no", "not", "never", "none", "neither", "nor", "cannot", "without", "nothing", "nobody", "nowhere")
)
_SPEAKER = frozenset(("i", "me", "my", "mine", "myself", "i'm", "i've", "i'd", "i'll", "we", "us", "our"))
_NO_NAMES = STOP_WORDS | _SPEAKER
_FUNCTION_WEIGHT = 0.3
_MARKED_WEIGHT = 2.0
_MOSTLY_SAME = 0.75
_HALF_SAME = 0.5
_TITLE_SHARE = 0.5
_NAME_STEM = 4
_SHORTEST_NAME = 3
_BETWEEN = frozenset((" ", "-", ", "))
"""What stands between a word and a name, where no sentence, line, quotation or list entry begins with the name."""


@dataclass(frozen=True, slots=True)
class Word:
    """A word as compared, and what it counts."""

    term: str
    weight: float


@dataclass(frozen=True, slots=True)
class Statement:
    """A sentence as the set of its content terms, and whether it negates."""

    terms: frozenset[str]
    negated: bool

    @classmethod
    def of(cls, text: str) -> "Statement":
        """What a sentence states."""
        tokens = lowered_tokens(text)
        terms = frozenset(normal(token) for token in tokens if token not in STOP_WORDS and not _negates(token))
        return cls(terms, any(_negates(token) for token in tokens))

    def repeats(self, other: "Statement") -> bool:
        """Whether `other` says most of this, and this at least half of `other`."""
        common = len(self.terms & other.terms)
        return common >= _MOSTLY_SAME * len(self.terms) and common >= _HALF_SAME * len(other.terms)

    def contradicts(self, other: "Statement") -> bool:
        """Whether one says a word where the other says its opposite; of two that repeat each other."""
        mine, theirs = self.terms - other.terms, other.terms - self.terms
        return any(opposites_of(term) & theirs for term in mine)


def words(text: str) -> tuple[Word, ...]:
    """The words in order; function words count little, numbers and names double."""
    found = []
    for match in TOKEN.finditer(text):
        token = match.group()
        lowered = token.lower()
        inner_capital = match.start() > 0 and token[0].isupper()
        if lowered in STOP_WORDS:
            weight = _FUNCTION_WEIGHT
        elif inner_capital or token[0].isdigit():
            weight = _MARKED_WEIGHT
        else:
            weight = 1.0
        found.append(Word(normal(lowered), weight))
    return tuple(found)


def terms(text: str) -> tuple[str, ...]:
    """The words in order, as compared."""
    return tuple(normal(token.lower()) for token in TOKEN.findall(text))


def lowered_tokens(text: str) -> list[str]:
    """The words in order, in lower case, with a plain apostrophe."""
    return [token.lower().replace(_APOSTROPHE, "'") for token in TOKEN.findall(text)]


def normal(word: str) -> str:
    """A comparable form: no possessive, spelled numbers as digits, ordinals as cardinals, else the stem."""
    word = word.replace(_APOSTROPHE, "'").removesuffix("'s")
    ordinal = _ORDINAL.fullmatch(word)
    if ordinal:
        return ordinal[1]
    return _SPELLED_NUMBERS.get(word) or stem(word)


def numbers(text: str) -> tuple[str, ...]:
    """Numbers without thousands separators; those spelled out too (not "one", mostly a pronoun)."""
    digits = (number.replace(",", "").rstrip(".") for number in _NUMBER.findall(text))
    spelled = (_SPELLED_NUMBERS[word.lower()] for word in TOKEN.findall(text) if word.lower() in _SPELLED_NUMBERS)
    return (*digits, *spelled)


def names(text: str) -> tuple[str, ...]:
    """Words that a capital marks as names: amid a line; none in a title, where most words have capitals."""
    tokens = TOKEN.findall(text)
    if sum(token[0].isupper() for token in tokens) > _TITLE_SHARE * len(tokens):
        return ()
    return tuple(_capitalised(text))


def _capitalised(text: str) -> Iterator[str]:
    end = -1
    for match in TOKEN.finditer(text):
        token, lowered = match.group(), match.group().lower().replace(_APOSTROPHE, "'")
        amid = end >= 0 and text[end : match.start()] in _BETWEEN
        if amid and token[0].isupper() and len(token) >= _SHORTEST_NAME and lowered not in _NO_NAMES:
            yield token
        end = match.end()


def is_held(name: str, among: frozenset[str], first_letters: frozenset[str]) -> bool:
    """Whether a name is among these terms, as it stands or with another ending ("Canada", "Canadian")."""
    term = normal(name.lower())
    return term in among or term[:_NAME_STEM] in first_letters


def first_letters_of(among: frozenset[str]) -> frozenset[str]:
    """What `is_held` compares of longer terms."""
    return frozenset(term[:_NAME_STEM] for term in among if len(term) >= _NAME_STEM)


def identifiers(text: str) -> tuple[str, ...]:
    """`module.name`, `snake_case` and `camelCase`, not `e.g.`; too long a run of letters is no name."""
    found = (match.group().strip(".") for match in _NAME.finditer(text))
    return tuple(name for name in found if len(name) <= _LONGEST_NAME and _is_identifier(name))


def speaker_share(text: str) -> float:
    """How much of a sentence is about who says it ("I", "my"): a chunk cannot support that."""
    tokens = lowered_tokens(text)
    return sum(token in _SPEAKER for token in tokens) / len(tokens) if tokens else 0.0


def _is_identifier(name: str) -> bool:
    return bool(_IDENTIFIER.fullmatch(name)) and not _ABBREVIATION.fullmatch(name)


def _negates(token: str) -> bool:
    return token in _NEGATIONS or token.endswith("n't")
