"""Turns what happened (an interaction, a piece of feedback) into evaluations with ids of their own.

Called by `events.py`; reads chunk texts through a port, publishes nothing itself.
"""

import asyncio
from collections import OrderedDict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Protocol

from servicekit.domain.ids import derive_id
from servicekit.domain.score import Score, Unmeasured
from servicekit.ports.clock import Clock
from services.evaluator.feedback import Feedback, score_feedback
from services.evaluator.scoring import score_subject
from services.evaluator.subject import Subject

# Every answer is scored: sampling is a later metric's business.
INCLUSION_PROBABILITY = 1.0


class ChunkSource(Protocol):
    """Where the texts of chunks are read."""

    async def fetch_texts(self, tenant: str, content_hashes: Sequence[str]) -> Mapping[str, str | Unmeasured]:
        """The text of each hash, or why there is none (CHUNK_ERASED, CHUNK_NOT_FOUND).

        Raises:
            BackendUnavailable, BackendTimeout: the caller tries the whole event again.
        """
        ...


@dataclass(frozen=True, slots=True)
class Context:
    """What an evaluation repeats of its interaction, so that analysts need no join for the usual questions."""

    request_id: str
    tenant: str
    route: str = ""
    model: str = ""
    prompt_version: str = ""
    interaction_time: datetime | None = None
    """When it ended; of feedback, when the request was accepted. A repeat never changes it."""


@dataclass(frozen=True, slots=True)
class Interaction:
    """A completed interaction, its subject still without chunk texts."""

    context: Context
    subject: Subject


@dataclass(frozen=True, slots=True)
class Evaluation:
    """One score of one answer, ready to be published."""

    evaluation_id: str
    context: Context
    score: Score
    score_time: datetime
    inclusion_probability: float = INCLUSION_PROBABILITY
    feedback_id: str = ""


class Evaluator:
    """Scores interactions and feedback; remembers recent contexts so that feedback carries its route.

    Not thread-safe; one per event loop.
    """

    def __init__(self, *, chunks: ChunkSource, clock: Clock, remembered: int = 4096) -> None:
        self._chunks = chunks
        self._clock = clock
        self._remembered = remembered
        self._contexts: OrderedDict[tuple[str, str], Context] = OrderedDict()

    async def evaluate_interaction(self, interaction: Interaction) -> tuple[Evaluation, ...]:
        """Every metric, measured or with its reason; the same ids for the same interaction.

        Raises:
            BackendUnavailable, BackendTimeout: chunk texts could not be read now.
        """
        context = interaction.context
        self._remember(context)
        subject = await self._with_texts(context.tenant, interaction.subject)
        # In a thread: a long answer with many citations takes seconds, and heartbeats must not wait for it.
        scores = await asyncio.to_thread(score_subject, subject)
        now = self._clock.now()
        return tuple(Evaluation(evaluation_id(context.request_id, score), context, score, now) for score in scores)

    def evaluate_feedback(self, feedback: Feedback, *, tenant: str) -> Evaluation:
        """The feedback as a score; its route is empty when the interaction was not seen by this process."""
        score = score_feedback(feedback)
        known = self._contexts.get((tenant, feedback.request_id)) or Context(feedback.request_id, tenant)
        context = replace(known, interaction_time=feedback.interaction_time)
        identity = evaluation_id(feedback.request_id, score, feedback_id=feedback.feedback_id)
        return Evaluation(identity, context, score, self._clock.now(), feedback_id=feedback.feedback_id)

    async def _with_texts(self, tenant: str, subject: Subject) -> Subject:
        wanted = tuple(dict.fromkeys(chunk.content_hash for chunk in subject.chunks if chunk.content_hash))
        if not wanted:
            return subject
        found = await self._chunks.fetch_texts(tenant, wanted)
        texts = {key: text for key, text in found.items() if not isinstance(text, Unmeasured)}
        missing = {key: reason for key, reason in found.items() if isinstance(reason, Unmeasured)}
        return replace(subject, texts=texts, missing=missing)

    def _remember(self, context: Context) -> None:
        self._contexts[context.tenant, context.request_id] = context
        while len(self._contexts) > self._remembered:
            self._contexts.popitem(last=False)


def evaluation_id(request_id: str, score: Score, *, feedback_id: str = "") -> str:
    """A UUID derived from what is scored and how, so that a repeat is the same evaluation."""
    return derive_id("evaluation", request_id, score.metric, score.version, feedback_id)
