"""What keeps the sink from storing now; noted by the sink and its sessions, asked by the readiness of analytics."""

from dataclasses import dataclass, field

import structlog

from servicekit.errors import NotReady
from servicekit.events.dead_letter_cap import Trip
from servicekit.events.metrics import STOPPED

log = structlog.get_logger()


@dataclass(slots=True)
class SinkHealth:
    """`stopped` topics stay so until the process is started anew; everything else passes by itself.

    `failing` has the last error of each topic whose batch cannot be stored, `no_session` that of the last session
    while there is none.
    """

    group: str
    no_session: str = "not started yet"
    paused: bool = False
    failing: dict[str, str] = field(default_factory=dict)
    stopped: dict[str, Trip] = field(default_factory=dict)

    def stop(self, topic: str, trip: Trip) -> None:
        """Too much of a topic was refused: nothing more of it is stored or committed."""
        self.stopped[topic] = trip
        STOPPED.labels(topic, self.group).set(1)
        log.error(
            "sink.topic_stopped",
            topic=topic,
            refused=trip.refused,
            seen=trip.seen,
            in_a_row=trip.in_a_row,
            error=trip.error[:300],
            remedy=f"find what refuses them (`binnacle dlq list {topic}`), mend it and restart analytics: nothing is "
            "lost, the topic is read again from its last commit",
        )

    async def ping(self) -> None:
        """Return if records flow from Kafka into the store.

        Raises:
            NotReady: says what keeps them, the worst first.
        """
        if self.stopped:
            told = "; ".join(f"{topic}: {trip}" for topic, trip in self.stopped.items())
            raise NotReady(f"dead letters stopped {told}; see `binnacle dlq list`", reason="DEAD_LETTER_CAP")
        if self.no_session:
            raise NotReady(f"the sink is not connected to Kafka: {self.no_session}", reason="SINK_NOT_CONNECTED")
        if self.failing:
            held = "fetching is paused, " if self.paused else ""
            told = "; ".join(f"{topic}: {error}" for topic, error in self.failing.items())
            raise NotReady(f"{held}batches wait for the store: {told}", reason="SINK_WAITS_FOR_STORE")
        if self.paused:
            raise NotReady(
                "fetching is paused: the store takes less than the topics give, and the topics lag",
                reason="SINK_PAUSED",
            )
