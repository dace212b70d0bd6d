"""Numbers what a producer sends and knows how far it is safe.

Pure; used by event-bus adapters when they publish, reported on `binnacle.producer.reported.v1`.

Sequences count from 1 for each (producer, topic, partition). What makes a hole in them mean a lost event:

- *A sequence is assigned only when the record goes out.* The partition is chosen first, and the adapter
  assigns and hands over under one lock a partition, so that sequences leave in order. A record that never
  entered the client's buffer gives its sequence back, which is safe while the lock is held, since nothing was
  assigned after it. An unsent tail is therefore never a hole.
- *Every assigned sequence is settled one way or the other.* It is acknowledged; or it is spooled, durable on the
  producer's disk until Kafka acknowledges it under the same number; or it is abandoned: the send failed, timed out
  or was cancelled, and nobody was promised the event. An abandoned one is not sent again under its old number:
  whoever asked gets the error and publishes again, under the same event id and a new sequence.
- *An abandoned record may still arrive*, since a client that gave up waiting has not called it back. If
  its acknowledgement comes late it counts as acknowledged; if the record is simply seen, nothing is missing.
- *The mark* is the highest sequence with all before it settled. Up to the mark every sequence that is listed
  neither as abandoned nor as spooled is in Kafka, so that a reader that lacks it has lost it; what is spooled is
  pending, and may have arrived since; beyond the mark nothing is claimed. A slow send in the middle holds the mark
  back, for at most the publish timeout.
- *Each report is complete by itself*: it lists all abandoned and spooled sequences of its marks, so that the
  newest report of a producer suffices and a lost one does no harm. The lists stay short: an adapter that knows its
  broker to be away and cannot spool assigns nothing, and what is spooled is told in spans.
- *A spool outlives its producer.* What one process left, the next one sends, under the numbers of the first; the
  ledger of the next knows nothing of them.

The reports' own topic is left out of the marks: a report could never count itself, so the last one would
always look lost. Reports carry sequences of their own all the same.
"""

from dataclasses import dataclass, field

from servicekit.events.spans import Span, Spans
from servicekit.events.topics import PRODUCER_REPORTED


@dataclass(frozen=True, slots=True)
class Mark:
    """Up to `accepted`, every sequence but those `abandoned` is acknowledged, or durable where `spooled` names it."""

    topic: str
    partition: int
    accepted: int
    abandoned: tuple[int, ...] = ()
    spooled: tuple[Span, ...] = ()


@dataclass(slots=True)
class _Partition:
    assigned: int = 0
    accepted: int = 0
    settled_ahead: set[int] = field(default_factory=set)
    abandoned: set[int] = field(default_factory=set)
    spooled: Spans = field(default_factory=Spans)


class SequenceLedger:
    """Sequences of one process start. Not thread-safe; one event loop owns it."""

    def __init__(self) -> None:
        self._partitions: dict[tuple[str, int], _Partition] = {}

    def assign(self, topic: str, partition: int) -> int:
        """The next sequence; the caller sends under the partition's lock and settles it later."""
        state = self._partitions.setdefault((topic, partition), _Partition())
        state.assigned += 1
        return state.assigned

    def give_back(self, topic: str, partition: int, sequence: int) -> None:
        """Undo the newest assignment: the record was never handed over.

        Raises:
            ValueError: a later sequence was assigned, or this one is settled.
        """
        state = self._partitions[topic, partition]
        if sequence != state.assigned or self._is_settled(state, sequence):
            raise ValueError(
                f"only the newest open sequence can be given back: {sequence} of {state.assigned} "
                f"in {topic}[{partition}]"
            )
        state.assigned -= 1

    def acknowledge(self, topic: str, partition: int, sequence: int) -> None:
        """The broker has the record; acknowledgements of abandoned and of spooled sequences count."""
        state = self._partitions[topic, partition]
        state.abandoned.discard(sequence)
        state.spooled.discard(sequence)
        self._settle(state, sequence)

    def spool(self, topic: str, partition: int, sequence: int) -> None:
        """The record is durable on disk and will be sent; no effect on one that is acknowledged already."""
        state = self._partitions[topic, partition]
        if self._is_settled(state, sequence) and sequence not in state.abandoned:
            return
        state.abandoned.discard(sequence)
        state.spooled.add(sequence)
        self._settle(state, sequence)

    def abandon(self, topic: str, partition: int, sequence: int) -> None:
        """Nobody was promised this record; no effect on one that is settled already."""
        state = self._partitions[topic, partition]
        if self._is_settled(state, sequence):
            return
        state.abandoned.add(sequence)
        self._settle(state, sequence)

    def marks(self) -> tuple[Mark, ...]:
        """How far each partition is safe; without the reports' own topic."""
        return tuple(
            Mark(
                topic=topic,
                partition=partition,
                accepted=state.accepted,
                abandoned=tuple(sorted(one for one in state.abandoned if one <= state.accepted)),
                spooled=tuple(state.spooled.up_to(state.accepted)),
            )
            for (topic, partition), state in sorted(self._partitions.items())
            if topic != PRODUCER_REPORTED and state.accepted
        )

    def in_flight(self) -> int:
        """How many assigned sequences are not settled."""
        return sum(state.assigned - state.accepted - len(state.settled_ahead) for state in self._partitions.values())

    @staticmethod
    def _is_settled(state: _Partition, sequence: int) -> bool:
        return sequence <= state.accepted or sequence in state.settled_ahead

    def _settle(self, state: _Partition, sequence: int) -> None:
        if not 1 <= sequence <= state.assigned:
            raise ValueError(f"sequence {sequence} was never assigned; the newest is {state.assigned}")
        if sequence > state.accepted:
            state.settled_ahead.add(sequence)
        while state.accepted + 1 in state.settled_ahead:
            state.accepted += 1
            state.settled_ahead.remove(state.accepted)
