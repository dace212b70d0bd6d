"""Finds texts in another language than those that a policy allows. Pure; one of `catalogue.py`'s detectors.

By the byte n-grams of langid (Lui and Baldwin, 2012), in its maintained form py3langid.
"""

from collections.abc import Iterator
from functools import cache
from typing import Any

from pydantic import BaseModel, ConfigDict, Field, field_validator

from servicekit.domain.verdict import Finding, Surface
from services.guardrail.detectors.detector import Subject
from services.guardrail.linear import LinearPattern

# What is of no language: code, addresses, figures, placeholders.
_FOREIGN = LinearPattern(r"(?s)```.*?```|`[^`\n]*`|https?://\S+|\S+@\S+|\[[A-Z]+_\d+\]|[\d_<>{}=#\\|]+")
_IDEOGRAPH = LinearPattern(r"[\p{Han}\p{Hiragana}\p{Katakana}\p{Hangul}\p{Thai}]")
_MIN_LETTERS, _MIN_IDEOGRAPHS = 40, 10
_SAMPLE_CHARS = 1_500
"""From each of front, middle and end: more makes it no surer."""


class LanguageOptions(BaseModel):
    """The languages that may be written, by their ISO 639-1 codes; none stated: any."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    allowed: tuple[str, ...] = Field(default=(), max_length=64)

    @field_validator("allowed")
    @classmethod
    def _known(cls, allowed: tuple[str, ...]) -> tuple[str, ...]:
        """A code that no text could have would forbid everything."""
        for code in allowed:
            if code not in _identifier().labels:
                known = ", ".join(sorted(_identifier().labels))
                raise ValueError(f"allowed must hold ISO 639-1 codes, got {code!r}; known: {known}")
        return allowed


class LanguageDetector:
    """Silent unless the policy states languages, and about texts too short to tell."""

    id = "language"
    version = "1"
    surfaces = frozenset({Surface.INPUT, Surface.OUTPUT})
    redacts = False
    options_model = LanguageOptions

    def find(self, subject: Subject) -> Iterator[Finding]:
        """One finding about all of the text: its score is the probability that it is in none of those allowed."""
        allowed = subject.options.allowed if isinstance(subject.options, LanguageOptions) else ()
        if not allowed:
            return
        sample = _sample(subject.text)
        if not _is_telling(sample):
            return
        ranked: list[tuple[str, float]] = _identifier().rank(sample)
        score = max(0.0, 1.0 - sum(probability for code, probability in ranked if code in allowed))
        likeliest = ranked[0][0]
        if likeliest not in allowed:
            message = f"Reads as {likeliest}; allowed: {', '.join(allowed)}."
            yield Finding("language.not_allowed", round(min(1.0, score), 4), message=message)


def _sample(text: str) -> str:
    """Words from three places of the text."""
    if len(text) > 3 * _SAMPLE_CHARS:
        middle = (len(text) - _SAMPLE_CHARS) // 2
        text = "\n".join((text[:_SAMPLE_CHARS], text[middle : middle + _SAMPLE_CHARS], text[-_SAMPLE_CHARS:]))
    pieces: list[str] = []
    position = 0
    for span in _FOREIGN.spans(text):
        pieces.append(text[position : span.start])
        position = span.end
    return " ".join((*pieces, text[position:]))


def _is_telling(sample: str) -> bool:
    letters = sum(map(str.isalpha, sample))
    return letters >= _MIN_LETTERS or sum(1 for _ in _IDEOGRAPH.spans(sample)) >= _MIN_IDEOGRAPHS


@cache
def _identifier() -> Any:
    # Loading the model takes a third of a second: once, and only where a policy states languages.
    from py3langid.langid import MODEL_FILE, LanguageIdentifier  # noqa: PLC0415

    return LanguageIdentifier.from_model_file(MODEL_FILE, norm_probs=True)
