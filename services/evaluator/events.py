"""What the evaluator consumes (interactions, feedback) and publishes (evaluations).

An event's offset is committed after its evaluations were acknowledged, so a crash repeats and never loses.
"""

import asyncio
from collections.abc import Sequence

import structlog

from binnacle.events.v1.feedback_recorded_pb2 import FeedbackRecorded
from binnacle.events.v1.interaction_completed_pb2 import InteractionCompleted
from servicekit.domain.envelope import ReceivedEvent
from servicekit.events.codec import decode
from servicekit.events.topics import EVALUATION_SCORED, FEEDBACK_RECORDED, INTERACTION_COMPLETED
from servicekit.ports.event_bus import EventPublisher, OutgoingEvent, RejectedEvent, Subscription
from services.evaluator.convert import evaluation_to, feedback_from, interaction_from
from services.evaluator.evaluating import Evaluation, Evaluator
from services.evaluator.metrics import SCORE_SECONDS, SCORED

GROUP = "evaluator"

log = structlog.get_logger()


class EvaluatorEvents:
    """The handlers, around one evaluator and one publisher."""

    def __init__(self, evaluator: Evaluator, publisher: EventPublisher) -> None:
        self._evaluator = evaluator
        self._publisher = publisher

    def subscriptions(self) -> tuple[Subscription, ...]:
        """What this service consumes."""
        return (
            Subscription(topic=INTERACTION_COMPLETED, group=GROUP, handle=self.on_interaction),
            Subscription(topic=FEEDBACK_RECORDED, group=GROUP, handle=self.on_feedback),
        )

    async def on_interaction(self, event: ReceivedEvent) -> None:
        """Score one interaction, whatever its outcome.

        Raises:
            RejectedEvent: it does not decode or names no request.
            BackendUnavailable, BackendTimeout: chunk texts or the bus are away; the event is tried again.
        """
        message = decode(event, InteractionCompleted)
        _require_request_id(message.request_id)
        with SCORE_SECONDS.time():
            await self._score_interaction(event, message)

    async def _score_interaction(self, event: ReceivedEvent, message: InteractionCompleted) -> None:
        interaction = interaction_from(message, tenant=event.envelope.tenant, record_time=event.time)
        await self._publish(await self._evaluator.evaluate_interaction(interaction))

    async def on_feedback(self, event: ReceivedEvent) -> None:
        """Score one piece of feedback; raises as `on_interaction`."""
        message = decode(event, FeedbackRecorded)
        _require_request_id(message.request_id)
        evaluation = self._evaluator.evaluate_feedback(feedback_from(message), tenant=event.envelope.tenant)
        await self._publish((evaluation,))

    async def _publish(self, evaluations: Sequence[Evaluation]) -> None:
        sends = [self._publisher.publish(_outgoing(evaluation)) for evaluation in evaluations]
        for outcome in await asyncio.gather(*sends, return_exceptions=True):
            if outcome is not None:
                raise outcome
        for evaluation in evaluations:
            score = evaluation.score
            SCORED.labels(score.metric, "no" if score.value is None else "yes").inc()
        log.debug("evaluations.published", evaluations=len(sends))


def _require_request_id(request_id: str) -> None:
    if not request_id:
        raise RejectedEvent("request_id is required to score anything, got none", stage="validate")


def _outgoing(evaluation: Evaluation) -> OutgoingEvent:
    return OutgoingEvent(
        topic=EVALUATION_SCORED,
        key=evaluation.context.request_id,
        id=evaluation.evaluation_id,
        tenant=evaluation.context.tenant,
        message=evaluation_to(evaluation),
    )
