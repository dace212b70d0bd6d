"""Notices what the embedded broker has evicted before a consumer group had read it.

Blocking; called by the supervisor from a thread now and then, and by nothing that runs on a durable Kafka.

The mock cluster drops the oldest records of a partition past about 5 MiB, acknowledged and unread ones alike. What it
still has begins at the low watermark; a group whose committed offset lies below it can never read what is between.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from confluent_kafka import OFFSET_INVALID, Consumer, TopicPartition

from servicekit.events.topics import TOPICS, consumer_group

_TIMEOUT_S = 5.0
# Its sink is one consumer of all its topics.
_ONE_GROUP_FOR_ALL = frozenset({"analytics"})


@dataclass(frozen=True, slots=True)
class Eviction:
    """`lost` records of a partition went before `group` had committed them."""

    topic: str
    partition: int
    group: str
    committed: int
    first_kept: int

    @property
    def lost(self) -> int:
        """How many records the group can no longer read."""
        return self.first_kept - self.committed


def registered_groups() -> Mapping[str, Sequence[str]]:
    """The topics of each consumer group of the stack.

    Without its replay topics: what is evicted there is still on the dead-letter topic, and no gap.
    """
    groups: dict[str, list[str]] = {}
    for spec in TOPICS.values():
        for consumer in spec.consumers:
            group = consumer if consumer in _ONE_GROUP_FOR_ALL else consumer_group(spec.name, consumer)
            groups.setdefault(group, []).append(spec.name)
    return groups


def find_evictions(bootstrap: str, *, groups: Mapping[str, Sequence[str]] | None = None) -> Sequence[Eviction]:
    """All evictions before commitment, now; a group without a commitment counts from the beginning.

    Raises:
        confluent_kafka.KafkaException: the broker does not answer within 5 s.
    """
    return [
        eviction
        for group, topics in (groups or registered_groups()).items()
        for eviction in _of_group(bootstrap, group, topics)
    ]


def _of_group(bootstrap: str, group: str, topics: Sequence[str]) -> list[Eviction]:
    consumer = Consumer({"bootstrap.servers": bootstrap, "group.id": group, "log_level": 2})
    try:
        known = consumer.list_topics(timeout=_TIMEOUT_S).topics
        partitions = [
            TopicPartition(topic, number) for topic in topics if topic in known for number in known[topic].partitions
        ]
        found = []
        for committed in consumer.committed(partitions, timeout=_TIMEOUT_S):
            low, _high = consumer.get_watermark_offsets(committed, timeout=_TIMEOUT_S, cached=False)
            position = 0 if committed.offset == OFFSET_INVALID else committed.offset
            if low > position:
                found.append(Eviction(committed.topic, committed.partition, group, position, low))
        return found
    finally:
        consumer.close()
