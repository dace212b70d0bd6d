"""Topics as they are asked of a real Kafka: partitions, retention, compaction and bounds of the registry."""

from servicekit.adapters.kafka.topic_setup import new_topic
from servicekit.events.topics import (
    DOCUMENT_SUBMITTED,
    DRIFT_ALERTED,
    INTERACTION_COMPLETED,
    TOPICS,
    dead_letter_topic,
    replay_topic,
)


def test_topic_has_the_registry_settings() -> None:
    """Text lives a week; partitions and replicas are as told."""
    topic = new_topic(INTERACTION_COMPLETED, TOPICS[INTERACTION_COMPLETED], replicas=3)
    assert (topic.num_partitions, topic.replication_factor) == (12, 3)
    assert topic.topic_configs["retention.ms"] == str(7 * 86_400_000)


def test_compacted_topic_is_compacted_and_its_dead_letters_and_replays_are_not() -> None:
    """Dead letters of one key are different events: none may replace another."""
    spec = TOPICS[DRIFT_ALERTED]
    assert new_topic(DRIFT_ALERTED, spec, replicas=1).topic_configs["cleanup.policy"] == "compact"
    for name in (dead_letter_topic(DRIFT_ALERTED, "analytics"), replay_topic(DRIFT_ALERTED, "analytics")):
        made = new_topic(name, spec, replicas=1)
        assert made.topic_configs["cleanup.policy"] == "delete"
        assert made.topic_configs["retention.ms"] == str(7 * 86_400_000)


def test_broker_takes_what_the_registry_allows() -> None:
    """The broker's bound leaves room for the envelope above the event's own bound."""
    spec = TOPICS[DOCUMENT_SUBMITTED]
    assert int(new_topic(spec.name, spec, replicas=1).topic_configs["max.message.bytes"]) > spec.max_bytes
