"""Lexical groundedness: how much of each sentence of an answer the chunks' own words support.

Pure; used by the guardrail's groundedness detector and by the evaluator, so that both mean the same. What sentences are
compared by stands in `statements.py`.

Support of a sentence is 0.8 times the share of its words, by weight, that the best single chunk holds (stemmed;
function words count little, numbers and names double), plus 0.2 times the share of its word pairs that stand so in
a chunk, less the share of words about who speaks. It is capped below `UNSUPPORTED` when the sentence states a number,
a name or an identifier that no chunk holds, or negates, or turns around by an opposite word, the chunk sentence that it
repeats. (The two weights were tried on BEGIN, one domain at a time left out: `services/guardrail/detectors/cards`.)
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property, lru_cache
from itertools import pairwise

from servicekit.domain.sentences import Sentence, split_sentences
from servicekit.domain.statements import (
    Statement,
    Word,
    first_letters_of,
    identifiers,
    is_held,
    names,
    numbers,
    speaker_share,
    terms,
    words,
)
from servicekit.domain.verdict import Span

GROUNDING_VERSION = "lexical-2"
UNSUPPORTED = 0.5
"""A sentence with less support than this is unsupported."""

_KEPT_CHUNKS = 512
_CAP = 0.4
_WORDS_SHARE, _PAIRS_SHARE = 0.8, 0.2
_SAME_STATEMENT = 0.75
_LIGHT = 5.0
"""Weight of words with which a sentence's own support counts as much as its answer's."""

_CITATION = re.compile(r"\[\d{1,3}(?:\s*,\s*\d{1,3})*\]")
_LIST_MARKER = re.compile(r"^\s*\d{1,3}[.)](?:\s+|$)|(?<=[:;.])\s\d{1,3}[.)]$")


@dataclass(frozen=True, slots=True)
class SentenceSupport:
    """One sentence of the answer: where it stands, its support (0 to 1), and what the chunks do not hold.

    `doubt` is what speaks against it within its answer: one less its support, where few words are weighed against the
    whole answer's support, so that a short aside of a supported answer is no claim; a contradiction is never eased.
    """

    span: Span
    support: float
    weight: float
    missing_numbers: tuple[str, ...] = ()
    missing_names: tuple[str, ...] = ()
    missing_identifiers: tuple[str, ...] = ()
    negation_differs: bool = False
    opposite_said: bool = False
    doubt: float = 0.0

    @property
    def supported(self) -> bool:
        """Whether the support reaches `UNSUPPORTED`."""
        return self.support >= UNSUPPORTED

    @property
    def contradicted(self) -> bool:
        """Whether it states something that the chunks do not hold, or hold otherwise."""
        missing = self.missing_numbers or self.missing_names or self.missing_identifiers
        return bool(missing) or self.negation_differs or self.opposite_said


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


class Evidence:
    """Chunks prepared to judge any number of answers, or pieces of one."""

    def __init__(self, chunk_texts: Sequence[str]) -> None:
        self._chunks = tuple(_chunk(text) for text in chunk_texts)

    def ground(self, answer: str) -> Grounding:
        """Judge one answer."""
        plain = _CITATION.sub(lambda marker: " " * len(marker.group()), answer)
        judged = (self._judge(sentence) for sentence in split_sentences(plain))
        stated = tuple(sentence for sentence in judged if sentence.weight > 0)
        total = sum(sentence.weight for sentence in stated)
        score = sum(sentence.support * sentence.weight for sentence in stated) / total if total else 1.0
        return Grounding(tuple(_doubted(sentence, score) for sentence in stated), min(1.0, score))

    def _judge(self, sentence: Sentence) -> SentenceSupport:
        span = Span(sentence.start, sentence.end)
        text = _LIST_MARKER.sub("", sentence.text)
        said = words(text)
        weight = sum(word.weight for word in said)
        if not weight:
            return SentenceSupport(span, 1.0, 0.0)
        best, share = self._best_chunk(said, weight)
        statement = Statement.of(text)
        repeated = best.repeated(statement) if best is not None and share >= _SAME_STATEMENT else ()
        support = _WORDS_SHARE * share + _PAIRS_SHARE * self._pairs_held(said, share) - speaker_share(text)
        judged = SentenceSupport(
            span,
            min(1.0, max(0.0, support)),
            weight,
            missing_numbers=tuple(
                one for one in numbers(text) if not any(one in held.numbers for held in self._chunks)
            ),
            missing_names=tuple(name for name in names(text) if not any(held.names(name) for held in self._chunks)),
            missing_identifiers=tuple(name for name in identifiers(text) if not self._holds(name)),
            negation_differs=bool(repeated) and all(other.negated != statement.negated for other in repeated),
            opposite_said=bool(repeated) and all(statement.contradicts(other) for other in repeated),
        )
        return replace(judged, support=min(judged.support, _CAP)) if judged.contradicted else judged

    def _best_chunk(self, said: Sequence[Word], weight: float) -> tuple["_Chunk | None", float]:
        best, support = None, 0.0
        for chunk in self._chunks:
            share = sum(word.weight for word in said if word.term in chunk.terms) / weight
            if share > support:
                best, support = chunk, share
        return best, support

    def _pairs_held(self, said: Sequence[Word], share: float) -> float:
        """The share of neighbouring words that some chunk has as neighbours; one word alone has none."""
        pairs = [(one.term, other.term) for one, other in pairwise(said)]
        if not pairs:
            return share
        return sum(any(pair in chunk.pairs for chunk in self._chunks) for pair in pairs) / len(pairs)

    def _holds(self, name: str) -> bool:
        """The identifier as it stands, or, for `module.name`, all of its parts somewhere in one chunk."""
        lowered = name.lower()
        parts = lowered.split(".")
        return any(lowered in chunk.lowered or all(part in chunk.lowered for part in parts) for chunk in self._chunks)


def _doubted(sentence: SentenceSupport, score: float) -> SentenceSupport:
    support = sentence.support
    if not sentence.contradicted:
        support = (support * sentence.weight + score * _LIGHT) / (sentence.weight + _LIGHT)
    return replace(sentence, doubt=round(min(1.0, max(0.0, 1.0 - support)), 4))


@dataclass(frozen=True)
class _Chunk:
    """A chunk's text as sets; what only some sentences need is worked out when it is asked for."""

    text: str
    lowered: str
    terms: frozenset[str]
    pairs: frozenset[tuple[str, str]]
    numbers: frozenset[str]

    @cached_property
    def statements(self) -> tuple[Statement, ...]:
        return tuple(Statement.of(sentence.text) for sentence in split_sentences(self.text))

    @cached_property
    def first_letters(self) -> frozenset[str]:
        return first_letters_of(self.terms)

    def names(self, name: str) -> bool:
        return is_held(name, self.terms, self.first_letters)

    def repeated(self, statement: Statement) -> tuple[Statement, ...]:
        """This chunk's statements that `statement` repeats, whatever their signs."""
        return tuple(other for other in self.statements if statement.repeats(other)) if statement.terms else ()


@lru_cache(maxsize=_KEPT_CHUNKS)
def _chunk(text: str) -> _Chunk:
    """An answer is judged piece by piece against the same chunks: they are prepared once."""
    said = terms(text)
    return _Chunk(text, text.lower(), frozenset(said), frozenset(pairwise(said)), frozenset(numbers(text)))
