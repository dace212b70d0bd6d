"""Reads what the retriever told of documents, and says what of it is missing. Used by `ingest.py`."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from confluent_kafka import Consumer, KafkaException, TopicPartition

from binnacle.events.v1 import document_indexed_pb2 as events
from servicekit.events.topics import DOCUMENT_INDEXED, TOPICS
from tests.chaos.ingest_documents import Act, Script

_ANSWER_S = 10.0
_BATCH = 500


@dataclass
class Told:
    """Revisions that were told of, and how a document's withdrawal was, by document."""

    revisions: dict[str, set[int]] = field(default_factory=dict)
    withdrawn: dict[str, set[Act]] = field(default_factory=dict)

    def take(self, event: events.DocumentIndexed) -> None:
        """One event."""
        match event.outcome:
            case events.DOCUMENT_OUTCOME_RETRACTED:
                self.withdrawn.setdefault(event.document_id, set()).add(Act.RETRACT)
            case events.DOCUMENT_OUTCOME_DELETED:
                self.withdrawn.setdefault(event.document_id, set()).add(Act.DELETE)
            case events.DOCUMENT_OUTCOME_REFUSED:
                pass
            case _:
                self.revisions.setdefault(event.document_id, set()).add(event.revision)

    def missing(self, script: Script, *, revision: int) -> Sequence[str]:
        """What was never told of a document whose current revision is this."""
        seen = self.revisions.get(script.document_id, set())
        untold = [f"revision {one}" for one in range(1, revision + 1) if one not in seen]
        acts = {step.act for step in script.steps} - {Act.SUBMIT}
        untold += [f"that it was to {act}" for act in acts - self.withdrawn.get(script.document_id, set())]
        return [f"{script.document_id}: {one} was not told" for one in untold]


def read_told(bootstrap: str) -> Told:
    """Everything on the topic. Blocking."""
    consumer = Consumer({"bootstrap.servers": bootstrap, "group.id": "chaos-reader", "enable.auto.commit": False})
    told = Told()
    try:
        left = _positions(consumer)
        consumer.assign([TopicPartition(DOCUMENT_INDEXED, partition, 0) for partition in left])
        while any(left.values()):
            for message in consumer.consume(_BATCH, timeout=_ANSWER_S):
                if message.error():
                    raise KafkaException(message.error())
                partition, offset = message.partition(), message.offset()
                if partition in left and offset is not None and offset + 1 >= left[partition]:
                    left[partition] = 0
                told.take(events.DocumentIndexed.FromString(message.value() or b""))
    finally:
        consumer.close()
    return told


def _positions(consumer: Consumer) -> dict[int, int]:
    """Where each partition ends now."""
    ends: Mapping[int, int] = {
        partition: consumer.get_watermark_offsets(TopicPartition(DOCUMENT_INDEXED, partition), timeout=_ANSWER_S)[1]
        for partition in range(TOPICS[DOCUMENT_INDEXED].partitions)
    }
    return dict(ends)
