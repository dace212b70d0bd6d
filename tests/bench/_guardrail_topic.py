"""How well denied topics are told from other questions, with the examples that a policy might state.

Part of `guardrail_quality.py`. The four topics and their questions were written for this project; harmless questions
are public ones and those on the other topics. All scores are `find`'s, at the default threshold of a topic.
"""

from collections.abc import Sequence
from importlib.resources import files
from pathlib import Path
from typing import Any

import yaml

from servicekit.domain.verdict import Surface
from services.guardrail.detectors.detector import Subject
from services.guardrail.detectors.topic import DEFAULT_THRESHOLD, TopicDetector, TopicOptions
from services.guardrail.normalizing import normalize
from services.guardrail.training.sets import SETS
from tests.bench._guardrail_figures import Figures, binary_figures, skipped
from tests.bench._guardrail_shipped import embed, in_threads

_QUESTIONS = {"nq_open": 800, "xstest_safe": None, "mtrag": 200}
_LOWEST = 0.1


def measure(data: Path) -> dict[str, Figures]:
    """Figures by topic: against public questions, and against questions on the other topics."""
    topics: dict[str, dict[str, Any]] = yaml.safe_load(
        files("tests.bench").joinpath("_guardrail_topics.yaml").read_text("utf-8")
    )
    if embed() is None:
        return dict.fromkeys(topics, skipped("the embedder is not installed"))
    public = [text for name, most in _QUESTIONS.items() for text in SETS[name].read(data)[:most]]
    found: dict[str, Figures] = {}
    for name, topic in topics.items():
        others = [text for other, one in topics.items() if other != name for text in one["examples"] + one["asked"]]
        found[name] = _figures(topic, public)
        found[f"{name}/other_topics"] = _figures(topic, others)
    return found


def _figures(topic: dict[str, Any], harmless: Sequence[str]) -> Figures:
    texts = [*topic["asked"], *harmless]
    labels = [True] * len(topic["asked"]) + [False] * len(harmless)
    options = TopicOptions.model_validate({"denied": {"it": {"examples": topic["examples"], "threshold": _LOWEST}}})
    scores = in_threads(lambda text: _score(text, options), texts)
    return binary_figures(scores, labels, DEFAULT_THRESHOLD)


def _score(text: str, options: TopicOptions) -> float:
    subject = Subject(Surface.INPUT, normalize(text), options=options, embed=embed())
    return max((finding.score for finding in TopicDetector().find(subject)), default=0.0)
