"""What the guardrail publishes: one decision for each check, without the text. It consumes nothing."""

from uuid_utils.compat import uuid7

from servicekit.domain.ids import derive_id
from servicekit.events.topics import GUARDRAIL_DECIDED
from servicekit.ports.event_bus import OutgoingEvent
from services.guardrail.checking import Decision
from services.guardrail.convert import decision_to
from services.guardrail.publishing import DecisionPublisher

LONGEST_WAIT_S = 2.0
_RESERVE_S = 0.02


class DecisionEvents:
    """Hands decisions to the publisher as events of their topic."""

    def __init__(self, publisher: DecisionPublisher) -> None:
        self._publisher = publisher

    async def record(self, decision: Decision, left_s: float | None) -> None:
        """Take the decision in, waiting for a place no longer than the caller can wait.

        Raises:
            BackendUnavailable: too many decisions wait for the bus (EVENT_NOT_RECORDED).
        """
        wait_s = LONGEST_WAIT_S if left_s is None else min(LONGEST_WAIT_S, max(0.0, left_s - _RESERVE_S))
        await self._publisher.submit(outgoing(decision), wait_s=wait_s)


def outgoing(decision: Decision) -> OutgoingEvent:
    """The event. Its id follows from tenant, request, surface and piece; outside of a request it is fresh."""
    context = decision.context
    if context.request_id:
        event_id = derive_id(
            GUARDRAIL_DECIDED, context.tenant, context.request_id, decision.surface.value, str(decision.piece)
        )
    else:
        event_id = str(uuid7())
    return OutgoingEvent(
        topic=GUARDRAIL_DECIDED,
        key=context.request_id or event_id,
        id=event_id,
        tenant=context.tenant,
        message=decision_to(decision),
    )
