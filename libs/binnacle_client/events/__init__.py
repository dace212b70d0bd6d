"""Events for consumers outside of Binnacle: typed, resumable, acknowledged one by one.

async with open_events(InteractionCompleted, servers="kafka:9092", group="billing") as events:
    async for event in events:
        match event:
            case Event():
                await charge(event.envelope.tenant, event.payload.cost_microusd, once=event.identity)
            case Rejected():
                log.error("not an event", place=str(event.place), reason=event.reason)
        await event.ack()
"""

from binnacle_client.events.event import Event, Place, Rejected
from binnacle_client.events.reader import Limits
from binnacle_client.events.recent import RecentEvents
from binnacle_client.events.schema import EventSchema, to_json
from binnacle_client.events.starting import Start, StartAt, parse_time
from binnacle_client.events.stream import EventStream, open_events
from servicekit.events.topics import message_class

__all__ = [
    "Event",
    "EventSchema",
    "EventStream",
    "Limits",
    "Place",
    "RecentEvents",
    "Rejected",
    "Start",
    "StartAt",
    "message_class",
    "open_events",
    "parse_time",
    "to_json",
]
