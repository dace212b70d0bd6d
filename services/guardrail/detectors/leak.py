"""Finds the system prompt in an answer: its canaries, and quotations of its text. Pure; in `catalogue.py`'s list."""

import hashlib
import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache
from itertools import islice
from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field, field_validator

from servicekit.domain.verdict import Finding, Span, Surface
from services.guardrail.detectors.detector import Subject
from services.guardrail.normalizing import NORMALIZING_VERSION, NormalizedText
from services.guardrail.prompt_texts import PromptTexts, load_prompt_texts

# Python's own expressions, eight times as fast for many matches: one repeated class is linear.
_WORD = re.compile(r"[^\W_]+")
_GRAM = 3
_GAP_WORDS = 4
"""So many words of its own may a quotation put between those of the prompt."""
_FULL_WORDS = 12
_FEWEST_CANARY_LETTERS = 8
_MAX_CANARIES = 64

_MESSAGES = {"leak.canary": "A canary of the system prompt.", "leak.quotation": "Words of the system prompt."}

Gram = tuple[str, ...]
Canary = Annotated[str, Field(max_length=256)]


class LeakOptions(BaseModel):
    """Further secrets of the prompts: words that stand in them and that no honest answer holds."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    canaries: tuple[Canary, ...] = Field(default=(), max_length=_MAX_CANARIES)

    @field_validator("canaries")
    @classmethod
    def _telling(cls, canaries: tuple[str, ...]) -> tuple[str, ...]:
        """Short ones would be found in honest answers; which it was is not told, since it is a secret."""
        for place, canary in enumerate(canaries):
            if len(_squeezed(canary)) < _FEWEST_CANARY_LETTERS:
                raise ValueError(
                    f"canaries[{place}] must have at least {_FEWEST_CANARY_LETTERS} letters and digits, got "
                    f"{len(_squeezed(canary))}; make it longer"
                )
        return canaries


@dataclass(frozen=True, slots=True)
class _Quotation:
    """A stretch of a view and how many of its words stand in a prompt."""

    span: Span
    words: int


class LeakDetector:
    """The prompts' own words in an answer, and canaries however they are written. Messages tell neither."""

    id = "leak"
    surfaces = frozenset({Surface.OUTPUT})
    redacts = False
    options_model = LeakOptions

    def __init__(self, prompts: PromptTexts | None = None, *, canaries: Sequence[str] = ()) -> None:
        """Without `prompts`, those packaged are read."""
        prompts = prompts or load_prompt_texts()
        self._canaries = tuple(map(_squeezed, canaries))
        said = _grams(prompts.said)
        self._grams = _grams(prompts.secret) - said
        known = "|".join(sorted(" ".join(gram) for gram in self._grams))
        digest = hashlib.sha256(f"{known}#{self._canaries}".encode()).hexdigest()
        self.version = f"1+{digest[:8]}+{NORMALIZING_VERSION}"

    def find(self, subject: Subject) -> Iterator[Finding]:
        """Canaries at score 1; each quotation by its words, 12 of them for 1, unless the chunks say the same."""
        canaries = [*self._canaries]
        if isinstance(subject.options, LeakOptions):
            canaries += map(_squeezed, subject.options.canaries)
        found: dict[tuple[str, Span], float] = {}
        for view in subject.views:
            for span in _canary_spans(view, canaries):
                found["leak.canary", subject.in_text(view, span)] = 1.0
            for quotation in self._quotations(view.text, subject.chunk_texts):
                key = "leak.quotation", subject.in_text(view, quotation.span)
                found[key] = max(found.get(key, 0.0), min(1.0, round(quotation.words / _FULL_WORDS, 4)))
        for (rule, span), score in found.items():
            yield Finding(rule, score, span, message=_MESSAGES[rule])

    def _quotations(self, text: str, chunk_texts: Sequence[str]) -> list[_Quotation]:
        places, words = _words(text)
        matched = [place for place, gram in enumerate(_grams_of(words)) if gram in self._grams]
        if not matched:
            return []
        if chunk_texts:
            cited = _grams_of_chunks(tuple(chunk_texts)) & self._grams
            matched = [place for place in matched if tuple(words[place : place + _GRAM]) not in cited]
        return [
            _Quotation(Span(places[run[0]].start, places[run[-1]].end), len(run))
            for run in _stretches(_covered(matched))
        ]


def _canary_spans(view: NormalizedText, canaries: Sequence[str]) -> Iterator[Span]:
    """The first place of each canary, whatever stands between its letters."""
    squeezed = _squeezed(view.text) if canaries else ""
    for canary in canaries:
        found = squeezed.find(canary)
        if found >= 0:
            yield _unsqueezed(view.text, found, len(canary))


def _squeezed(text: str) -> str:
    """Its letters and digits alone, without case."""
    return "".join(filter(str.isalnum, text.casefold()))


def _unsqueezed(text: str, start: int, length: int) -> Span:
    """The place of letters and digits that are known by their count."""
    places = [place for place, char in enumerate(text) for one in char.casefold() if one.isalnum()]
    return Span(places[start], places[start + length - 1] + 1)


def _words(text: str) -> tuple[list[Span], list[str]]:
    places = [Span(*match.span()) for match in _WORD.finditer(text)]
    return places, [text[place.start : place.end].casefold() for place in places]


def _grams_of(words: Sequence[str]) -> Iterator[Gram]:
    return zip(*(islice(words, start, None) for start in range(_GRAM)), strict=False)


def _grams(texts: Iterable[str]) -> set[Gram]:
    return {gram for text in texts for gram in _grams_of(_words(text)[1])}


@lru_cache(maxsize=64)
def _grams_of_chunks(chunk_texts: tuple[str, ...]) -> set[Gram]:
    """A streamed answer is judged word by word against the same chunks: their words are taken apart once."""
    return _grams(chunk_texts)


def _covered(matched: Sequence[int]) -> Iterator[int]:
    """Every word that is part of a run found, once, in order."""
    done = 0
    for place in matched:
        yield from range(max(done, place), place + _GRAM)
        done = place + _GRAM


def _stretches(words: Iterable[int]) -> list[list[int]]:
    stretches: list[list[int]] = []
    for word in words:
        if stretches and word - stretches[-1][-1] <= _GAP_WORDS + 1:
            stretches[-1].append(word)
        else:
            stretches.append([word])
    return stretches
