"""Tests of topics denied by meaning, with an embedder that counts words."""

from collections.abc import Sequence

import numpy as np
import pytest
from pydantic import ValidationError

from servicekit.domain.verdict import Finding, Surface
from servicekit.errors import NotReady
from services.guardrail.detectors.detector import Embed, Subject
from services.guardrail.detectors.topic import TopicDetector, TopicOptions
from services.guardrail.normalizing import normalize

_WORDS = ("medicine", "dose", "doctor", "shares", "bank", "weather", "rain")
_OPTIONS = TopicOptions.model_validate(
    {
        "denied": {
            "medical_advice": {"examples": ["medicine dose", "doctor medicine"], "threshold": 0.5},
            "finance": {"examples": ["shares bank"]},
        }
    }
)


class CountingEmbedder:
    """A word is a dimension."""

    def __init__(self) -> None:
        self.calls: list[int] = []

    def __call__(self, texts: Sequence[str]) -> list[list[float]]:
        """Unit vectors, or nothing where no word is known."""
        self.calls.append(len(texts))
        counts = np.array([[text.lower().count(word) for word in _WORDS] for text in texts], dtype=float)
        lengths = np.linalg.norm(counts, axis=1, keepdims=True)
        vectors: list[list[float]] = (counts / np.where(lengths, lengths, 1.0)).tolist()
        return vectors


def test_a_text_near_the_examples_is_told_with_its_topic() -> None:
    """The rule names the topic that the policy named."""
    (found,) = _find("Which dose of this medicine should I take?", CountingEmbedder())
    assert found.rule == "topic.medical_advice"
    assert found.score > 0.8


def test_other_topics_pass() -> None:
    """What comes near no example is not told."""
    assert not _find("Will there be rain, or what is the weather like?", CountingEmbedder())


def test_the_part_of_a_long_text_that_speaks_of_it_is_told() -> None:
    """A long text is compared in parts."""
    text = "weather and rain again. " * 40 + "Your shares at the bank. " * 20
    (found,) = _find(text, CountingEmbedder())
    assert found.rule == "topic.finance"
    assert found.span is not None
    assert "shares" in text[found.span.start : found.span.end]


def test_without_denied_topics_nothing_is_asked() -> None:
    """No embedder is needed where no topic is denied."""
    embedder = CountingEmbedder()
    assert not list(TopicDetector().find(Subject(Surface.INPUT, normalize("dose"), options=TopicOptions())))
    assert not _find("dose", embedder, TopicOptions())
    assert not embedder.calls


def test_denied_topics_without_an_embedder_fail() -> None:
    """So that the policy's on_failure decides."""
    with pytest.raises(NotReady, match="embedder_url"):
        _find("dose", None)


def test_many_examples_are_embedded_in_parts() -> None:
    """One call of the embedder stays short."""
    embedder = CountingEmbedder()
    examples = [f"medicine {number}" for number in range(40)]
    _find("dose", embedder, TopicOptions.model_validate({"denied": {"it": {"examples": examples}}}))
    assert embedder.calls == [1, 16, 16, 8]


@pytest.mark.parametrize(
    "denied", [{"it": {"examples": []}}, {"Not A Name": {"examples": ["a"]}}, {"it": {"exmples": []}}]
)
def test_options_that_make_no_sense_are_refused(denied: dict[str, object]) -> None:
    """A topic needs examples, and a name that a rule may have."""
    with pytest.raises(ValidationError):
        TopicOptions.model_validate({"denied": denied})


def _find(text: str, embed: Embed | None, options: TopicOptions = _OPTIONS) -> list[Finding]:
    return list(TopicDetector().find(Subject(Surface.INPUT, normalize(text), options=options, embed=embed)))
