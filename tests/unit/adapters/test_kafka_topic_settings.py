"""What of a broker's topic is not as the registry says."""

from servicekit.adapters.kafka.topic_settings import PARTITIONS, TopicDifference, differences, settings_of
from servicekit.events.topics import DRIFT_ALERTED, INTERACTION_COMPLETED, TOPICS


def test_topic_as_registered_has_no_difference() -> None:
    """What else the broker tells of a topic is its own affair."""
    spec = TOPICS[INTERACTION_COMPLETED]
    found = {**settings_of(spec.name, spec), PARTITIONS: str(spec.partitions), "segment.bytes": "1"}
    assert not differences(spec.name, spec, found=found)


def test_each_setting_that_differs_is_named_with_both_values() -> None:
    """Fewer partitions and a shorter retention are two differences; nothing is said of the rest."""
    spec = TOPICS[INTERACTION_COMPLETED]
    found = {**settings_of(spec.name, spec), PARTITIONS: "4", "retention.ms": "1000"}
    assert set(differences(spec.name, spec, found=found)) == {
        TopicDifference(spec.name, PARTITIONS, "4", "12"),
        TopicDifference(spec.name, "retention.ms", "1000", str(7 * 86_400_000)),
    }


def test_retention_of_a_compacted_topic_is_not_compared() -> None:
    """Compaction keeps the last of each key whatever the retention says."""
    spec = TOPICS[DRIFT_ALERTED]
    found = {**settings_of(spec.name, spec), PARTITIONS: str(spec.partitions), "retention.ms": "1"}
    assert not differences(spec.name, spec, found=found)
