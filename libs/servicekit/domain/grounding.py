"""Lexical groundedness: how much of each sentence of an answer the chunks' own words support.

Pure; used by the guardrail's groundedness detector and by the evaluator, so that both mean the same.

Support of a sentence is the share of its words, by weight, that the best single chunk holds (stemmed;
function words count little, numbers and names double). A sentence is capped below `UNSUPPORTED` when it
states a number or an identifier that no chunk holds, or negates (or fails to negate) the chunk sentence that
it repeats.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property, lru_cache

from servicekit.domain.sentences import STOP_WORDS, Sentence, split_sentences, stem
from servicekit.domain.verdict import Span

GROUNDING_VERSION = "lexical-1"
UNSUPPORTED = 0.5
"""A sentence with less support than this is unsupported."""

_KEPT_CHUNKS = 512
_CAP = 0.4
_FUNCTION_WEIGHT = 0.3
_MARKED_WEIGHT = 2.0
_SAME_STATEMENT = 0.75
_HALF_STATEMENT = 0.5

_APOSTROPHE = "\u2019"
_CITATION = re.compile(r"\[\d{1,3}(?:\s*,\s*\d{1,3})*\]")
_LIST_MARKER = re.compile(r"^\s*\d{1,3}[.)]\s+")
_TOKEN = re.compile(r"[^\W_]+(?:['\u2019][^\W_]+)*")
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


@dataclass(frozen=True, slots=True)
class SentenceSupport:
    """One sentence of the answer: where it stands, its support (0 to 1), and what the chunks do not hold."""

    span: Span
    support: float
    weight: float
    missing_numbers: tuple[str, ...] = ()
    missing_identifiers: tuple[str, ...] = ()
    negation_differs: bool = False

    @property
    def supported(self) -> bool:
        """Whether the support reaches `UNSUPPORTED`."""
        return self.support >= UNSUPPORTED


@dataclass(frozen=True, slots=True)
class Grounding:
    """The answer's sentences in order and their support together, weighted by their words.

    `score` is 0 to 1, and 1 for an answer that states nothing.
    """

    sentences: tuple[SentenceSupport, ...]
    score: float

    @property
    def unsupported(self) -> tuple[Span, ...]:
        """Where the answer says what the chunks do not."""
        return tuple(sentence.span for sentence in self.sentences if not sentence.supported)


def ground(answer: str, chunk_texts: Sequence[str]) -> Grounding:
    """Judge an answer against the chunks it was made from; citation markers `[n]` are ignored."""
    return Evidence(chunk_texts).ground(answer)


@dataclass(frozen=True, slots=True)
class _Word:
    term: str
    weight: float


class Evidence:
    """Chunks prepared to judge any number of answers, or pieces of one."""

    def __init__(self, chunk_texts: Sequence[str]) -> None:
        self._chunks = tuple(_chunk(text) for text in chunk_texts)

    def ground(self, answer: str) -> Grounding:
        """Judge one answer."""
        plain = _CITATION.sub(lambda marker: " " * len(marker.group()), answer)
        judged = tuple(self._judge(sentence) for sentence in split_sentences(plain))
        stated = tuple(sentence for sentence in judged if sentence.weight > 0)
        total = sum(sentence.weight for sentence in stated)
        score = sum(sentence.support * sentence.weight for sentence in stated) / total if total else 1.0
        return Grounding(stated, min(1.0, score))

    def _judge(self, sentence: Sentence) -> SentenceSupport:
        span = Span(sentence.start, sentence.end)
        text = _LIST_MARKER.sub("", sentence.text)
        words = _words(text)
        weight = sum(word.weight for word in words)
        if not weight:
            return SentenceSupport(span, 1.0, 0.0)
        best, support = self._best_chunk(words, weight)
        numbers = tuple(
            number for number in _numbers(text) if not any(number in chunk.numbers for chunk in self._chunks)
        )
        identifiers = tuple(name for name in _identifiers(text) if not self._holds(name))
        negation = best is not None and support >= _SAME_STATEMENT and best.negation_differs(text)
        if numbers or identifiers or negation:
            support = min(support, _CAP)
        return SentenceSupport(span, support, weight, numbers, identifiers, negation)

    def _best_chunk(self, words: Sequence[_Word], weight: float) -> tuple["_Chunk | None", float]:
        best, support = None, 0.0
        for chunk in self._chunks:
            share = sum(word.weight for word in words if word.term in chunk.terms) / weight
            if share > support:
                best, support = chunk, share
        return best, support

    def _holds(self, name: str) -> bool:
        """The identifier as it stands, or, for `module.name`, all of its parts somewhere in one chunk."""
        lowered = name.lower()
        parts = lowered.split(".")
        return any(lowered in chunk.lowered or all(part in chunk.lowered for part in parts) for chunk in self._chunks)


@dataclass(frozen=True)
class _Chunk:
    """A chunk's text as sets; what only negation needs is worked out when it is asked for."""

    text: str
    lowered: str
    terms: frozenset[str]
    numbers: frozenset[str]

    @cached_property
    def statements(self) -> tuple["_Statement", ...]:
        return tuple(_Statement.of(sentence.text) for sentence in split_sentences(self.text))

    def negation_differs(self, text: str) -> bool:
        """Whether this chunk says what `text` says, and everywhere with the other sign."""
        statement = _Statement.of(text)
        same = [other for other in self.statements if statement.repeats(other)] if statement.terms else []
        return bool(same) and all(other.negated != statement.negated for other in same)


@lru_cache(maxsize=_KEPT_CHUNKS)
def _chunk(text: str) -> _Chunk:
    """An answer is judged piece by piece against the same chunks: they are prepared once."""
    return _Chunk(text, text.lower(), frozenset(_terms(text)), frozenset(_numbers(text)))


@dataclass(frozen=True, slots=True)
class _Statement:
    """A sentence as the set of its content terms, and whether it negates."""

    terms: frozenset[str]
    negated: bool

    @classmethod
    def of(cls, text: str) -> "_Statement":
        tokens = [token.lower().replace(_APOSTROPHE, "'") for token in _TOKEN.findall(text)]
        terms = frozenset(_normal(token) for token in tokens if token not in STOP_WORDS and not _negates(token))
        return cls(terms, any(_negates(token) for token in tokens))

    def repeats(self, other: "_Statement") -> bool:
        """Whether `other` says most of this, and this at least half of `other`."""
        common = len(self.terms & other.terms)
        return common >= _SAME_STATEMENT * len(self.terms) and common >= _HALF_STATEMENT * len(other.terms)


def _words(text: str) -> tuple[_Word, ...]:
    found = []
    for match in _TOKEN.finditer(text):
        token = match.group()
        lowered = token.lower()
        inner_capital = match.start() > 0 and token[0].isupper()
        if lowered in STOP_WORDS:
            weight = _FUNCTION_WEIGHT
        elif inner_capital or token[0].isdigit():
            weight = _MARKED_WEIGHT
        else:
            weight = 1.0
        found.append(_Word(_normal(lowered), weight))
    return tuple(found)


def _terms(text: str) -> set[str]:
    return {_normal(token.lower()) for token in _TOKEN.findall(text)}


def _normal(word: str) -> str:
    """A comparable form: no possessive, spelled numbers as digits, ordinals as cardinals, else the stem."""
    word = word.replace(_APOSTROPHE, "'").removesuffix("'s")
    ordinal = _ORDINAL.fullmatch(word)
    if ordinal:
        return ordinal[1]
    return _SPELLED_NUMBERS.get(word) or stem(word)


def _numbers(text: str) -> tuple[str, ...]:
    """Numbers without thousands separators; those spelled out too (not "one", mostly a pronoun)."""
    digits = (number.replace(",", "").rstrip(".") for number in _NUMBER.findall(text))
    spelled = (_SPELLED_NUMBERS[word.lower()] for word in _TOKEN.findall(text) if word.lower() in _SPELLED_NUMBERS)
    return (*digits, *spelled)


def _identifiers(text: str) -> tuple[str, ...]:
    """`module.name`, `snake_case` and `camelCase`, not `e.g.`; too long a run of letters is no name."""
    names = (match.group().strip(".") for match in _NAME.finditer(text))
    return tuple(name for name in names if len(name) <= _LONGEST_NAME and _is_identifier(name))


def _is_identifier(name: str) -> bool:
    return bool(_IDENTIFIER.fullmatch(name)) and not _ABBREVIATION.fullmatch(name)


def _negates(token: str) -> bool:
    return token in _NEGATIONS or token.endswith("n't")
