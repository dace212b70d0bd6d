"""What the drift monitor consumes: interactions, guardrail decisions and scores.

An event's offset is committed once it is in the windows; a restart reads the windows back from the analytics
store and takes up where the offsets stand, and what comes twice is known by its request id.
"""

import structlog

from binnacle.events.v1.evaluation_scored_pb2 import EvaluationScored
from binnacle.events.v1.guardrail_decided_pb2 import GuardrailDecided
from binnacle.events.v1.interaction_completed_pb2 import InteractionCompleted
from servicekit.domain.envelope import ReceivedEvent
from servicekit.events.codec import decode
from servicekit.events.topics import EVALUATION_SCORED, GUARDRAIL_DECIDED, INTERACTION_COMPLETED
from servicekit.ports.event_bus import RejectedEvent, Subscription
from services.drift_monitor.convert import decision_from, request_from, score_from
from services.drift_monitor.monitor import DriftMonitor

GROUP = "drift_monitor"

log = structlog.get_logger()


class DriftMonitorEvents:
    """The handlers, around one monitor."""

    def __init__(self, monitor: DriftMonitor) -> None:
        self._monitor = monitor

    def subscriptions(self) -> tuple[Subscription, ...]:
        """What this service consumes."""
        return (
            Subscription(topic=INTERACTION_COMPLETED, group=GROUP, handle=self.on_interaction),
            Subscription(topic=GUARDRAIL_DECIDED, group=GROUP, handle=self.on_decision),
            Subscription(topic=EVALUATION_SCORED, group=GROUP, handle=self.on_score),
        )

    async def on_interaction(self, event: ReceivedEvent) -> None:
        """Put one interaction into its window.

        Raises:
            RejectedEvent: it does not decode, or has no request id or time.
        """
        message = decode(event, InteractionCompleted)
        if not message.request_id or not message.HasField("complete_time"):
            raise RejectedEvent("request_id and complete_time are required", stage="validate")
        request = request_from(message, tenant=event.envelope.tenant)
        if request is not None:
            self._monitor.observe_request(request)

    async def on_score(self, event: ReceivedEvent) -> None:
        """Add one score to its request; raises as `on_interaction`."""
        seen = score_from(decode(event, EvaluationScored), tenant=event.envelope.tenant)
        if seen is not None:
            self._monitor.observe_values(seen)

    async def on_decision(self, event: ReceivedEvent) -> None:
        """Add one guardrail decision to its request; raises as `on_interaction`."""
        seen = decision_from(decode(event, GuardrailDecided), tenant=event.envelope.tenant)
        if seen is not None:
            self._monitor.observe_values(seen)
