"""The groups whose unread records count as gaps are those that read."""

from typing import Any

from servicekit.events.topics import TOPICS, consumer_group
from services.drift_monitor.events import DriftMonitorEvents
from services.evaluator.events import EvaluatorEvents
from services.local.evictions import registered_groups
from services.retriever.events import RetrieverEvents

_UNUSED: Any = None


def test_every_watched_group_is_one_that_a_service_reads_in() -> None:
    """A group that nobody reads in would commit nothing, and every eviction of its topic would pass for a loss."""
    retriever = RetrieverEvents(
        indexer=_UNUSED, operations=_UNUSED, publisher=_UNUSED, clock=_UNUSED, embedding_model=""
    )
    read = {
        (consumer_group(subscription.topic, subscription.group), subscription.topic)
        for events in (DriftMonitorEvents(_UNUSED), EvaluatorEvents(_UNUSED, _UNUSED), retriever)
        for subscription in events.subscriptions()
    }
    read |= {("analytics", spec.name) for spec in TOPICS.values() if "analytics" in spec.consumers}
    watched = {(group, topic) for group, topics in registered_groups().items() for topic in topics}
    assert watched == read


def test_what_is_evicted_of_a_replay_topic_is_no_gap() -> None:
    """It is still on the dead-letter topic, and its record stands on its own topic under its own offset."""
    assert not [topic for topics in registered_groups().values() for topic in topics if topic not in TOPICS]
