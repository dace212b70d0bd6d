"""Finds topics that a policy denies, by how near a text's meaning is to the policy's examples of them.

One of `catalogue.py`'s detectors; pure but for the embedder, which remembers the vectors of the examples.
"""

from collections.abc import Iterator, Mapping, Sequence
from typing import Annotated

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field, StringConstraints

from servicekit.domain.verdict import Finding, Surface
from servicekit.errors import NotReady
from services.guardrail.detectors.detector import Embed, Subject
from services.guardrail.windows import windows

DEFAULT_THRESHOLD = 0.3
_MOST_WINDOWS = 8
_AT_ONCE = 16
"""Texts embedded by one call, so that a policy's many examples are not one long call."""

TopicName = Annotated[str, StringConstraints(pattern=r"^[a-z][a-z0-9_]{0,63}$")]
ExampleText = Annotated[str, StringConstraints(strip_whitespace=True, min_length=1, max_length=500)]


class DeniedTopic(BaseModel):
    """Texts on a topic, better several of different kinds; how near a text must come, of 1."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    examples: tuple[ExampleText, ...] = Field(min_length=1, max_length=64)
    threshold: float = Field(default=DEFAULT_THRESHOLD, ge=0.1, le=1.0)


class TopicOptions(BaseModel):
    """The topics that are denied, by name; none stated: any may be spoken of."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    denied: Mapping[TopicName, DeniedTopic] = Field(default_factory=dict, max_length=32)


class TopicDetector:
    """Silent unless the policy denies topics. Of a long text, eight windows evenly spread are compared."""

    id = "topic"
    version = "1"
    surfaces = frozenset({Surface.INPUT, Surface.OUTPUT})
    redacts = False
    options_model = TopicOptions

    def find(self, subject: Subject) -> Iterator[Finding]:
        """One finding for each denied topic that some part of the text comes near; its score is how near.

        Raises:
            NotReady: topics are denied and no embedder is configured; the policy's on_failure decides.
            BackendUnavailable, BackendTimeout: as the embedder says.
        """
        denied = subject.options.denied if isinstance(subject.options, TopicOptions) else {}
        if not denied or not subject.text.strip():
            return
        if subject.embed is None:
            raise NotReady(
                "topic needs an embedder to compare with its examples: set embedder_url", reason="NO_EMBEDDER"
            )
        places = windows(subject.text, at_most=_MOST_WINDOWS)
        vectors = _vectors(subject.embed, [subject.text[place.start : place.end] for place in places])
        for name, topic in denied.items():
            scores = nearness(vectors, _vectors(subject.embed, topic.examples))
            strongest = int(np.argmax(scores))
            score = round(float(np.clip(scores[strongest], 0.0, 1.0)), 4)
            if score >= topic.threshold:
                message = f"Speaks of a topic that the policy denies: {name}."
                yield Finding(f"topic.{name}", score, places[strongest], message=message)


def nearness(vectors: NDArray[np.float64], examples: NDArray[np.float64]) -> NDArray[np.float64]:
    """Of each unit vector: the mean of its cosines with the nearest example and with the centre of all of them.

    The nearest alone is drawn by chance words, the centre alone misses topics of several kinds.
    """
    centre = examples.mean(axis=0)
    length = float(np.linalg.norm(centre))
    nearest = (vectors @ examples.T).max(axis=1)
    return np.asarray((nearest + vectors @ (centre / length if length else centre)) / 2, dtype=np.float64)


def _vectors(embed: Embed, texts: Sequence[str]) -> NDArray[np.float64]:
    parts = [embed(texts[start : start + _AT_ONCE]) for start in range(0, len(texts), _AT_ONCE)]
    return np.array([list(vector) for part in parts for vector in part], dtype=np.float64)
