"""Tests of finding insults, threats and hatred, and of leaving strong words alone that are none."""

import pytest

from servicekit.domain.verdict import Finding, Surface
from services.guardrail.detectors.detector import Subject
from services.guardrail.detectors.toxicity import ToxicityDetector
from services.guardrail.normalizing import normalize
from services.guardrail.plain_speech import plain_speech
from services.guardrail.utterances import SHORT_CHARS, utterances

_TOXIC = (
    "You are a worthless piece of garbage and everyone hates you.",
    "I will find you and break your legs.",
    "All immigrants are vermin and should be thrown out.",
    "shut up you stupid bitch",
)
_HARMLESS = (
    "How do I kill a Python process?",
    "I am a Muslim and my best friend is a Jew.",
    "This printer is useless, I want my money back.",
    "He was fined for calling refugees vermin.",
    "What is the best way to beat my brother at chess?",
    "My gay uncle and his husband cooked dinner for us.",
    "The flow separates at the trailing edge of the wing.",
)


@pytest.fixture(scope="module")
def detector() -> ToxicityDetector:
    """The shipped one."""
    return ToxicityDetector()


@pytest.mark.parametrize("text", _TOXIC)
def test_insults_threats_and_hatred_are_found(detector: ToxicityDetector, text: str) -> None:
    """With slurs and without."""
    assert _told(detector, text)


@pytest.mark.parametrize("text", _HARMLESS)
def test_strong_words_and_identities_are_left_alone(detector: ToxicityDetector, text: str) -> None:
    """To name a people, a weapon or a failure is no insult."""
    assert not _told(detector, text)


def test_an_insult_in_a_long_text_is_found_where_it_stands(detector: ToxicityDetector) -> None:
    """Ten harmless paragraphs do not dilute it."""
    calm = "The committee met on Tuesday and approved the budget for the new library. " * 10
    text = f"{calm}{_TOXIC[0]} {calm}"
    found = _told(detector, text)
    assert [text[finding.span.start : finding.span.end] for finding in found if finding.span] == [_TOXIC[0]]


def test_what_says_nothing_about_tone_is_not_read() -> None:
    """Handles, links and drawn-out letters would be learnt as signs of the sets that they come from."""
    assert plain_speech("RT @bob: sooooo &amp; so https://t.co/x #wow").split() == ["soo", "&", "so", "wow"]


def test_a_short_text_is_also_judged_as_a_whole() -> None:
    """What is spread over two sentences is read as one; a long text is not."""
    text = "Look at you. What a joke."
    assert [text[part.start : part.end] for part in utterances(text)] == [text, "Look at you.", "What a joke."]
    long = "It rains. " * (SHORT_CHARS // 10 + 1)
    assert all(part.end - part.start < SHORT_CHARS for part in utterances(long))


def _told(detector: ToxicityDetector, text: str) -> list[Finding]:
    subject = Subject(Surface.INPUT, normalize(text))
    return [finding for finding in detector.find(subject) if finding.score >= detector.threshold]
