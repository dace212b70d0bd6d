"""What the gateway publishes; it subscribes to nothing. Events carry ids derived from what they tell of."""

from servicekit.domain.ids import derive_id
from servicekit.events.topics import FEEDBACK_RECORDED, INTERACTION_COMPLETED
from servicekit.ports.event_bus import OutgoingEvent
from services.gateway.convert_events import feedback_message, interaction_message
from services.gateway.feedback import RecordedFeedback
from services.gateway.record import Interaction


def interaction_completed(interaction: Interaction) -> OutgoingEvent:
    """The event of a closed interaction; one for each request id."""
    return OutgoingEvent(
        topic=INTERACTION_COMPLETED,
        key=interaction.request_id,
        id=derive_id("interaction.completed", interaction.request_id),
        tenant=interaction.asker.tenant,
        message=interaction_message(interaction),
    )


def feedback_recorded(recorded: RecordedFeedback) -> OutgoingEvent:
    """The event of a feedback; one for each tenant and feedback id."""
    return OutgoingEvent(
        topic=FEEDBACK_RECORDED,
        key=recorded.feedback.request_id,
        id=derive_id("feedback.recorded", recorded.tenant, recorded.feedback.feedback_id),
        tenant=recorded.tenant,
        message=feedback_message(recorded),
    )
