"""The topic registry: complete, consistent, and every message it names exists."""

import importlib
import pkgutil

import pytest

import binnacle.events.v1
from servicekit.events import topics
from servicekit.events.topics import TOPICS, TopicSpec, consumer_group, dead_letter_topic, message_class

_NAME = r"binnacle\.[a-z]+\.[a-z]+\.v1"
_SERVICES = {"gateway", "retriever", "generator", "guardrail", "evaluator", "drift_monitor", "analytics"}


@pytest.mark.parametrize("spec", TOPICS.values(), ids=TOPICS)
def test_message_of_every_topic_exists(spec: TopicSpec) -> None:
    """The registered full name resolves to a class of that name."""
    assert message_class(spec.name).DESCRIPTOR.full_name == spec.message


@pytest.mark.parametrize("spec", TOPICS.values(), ids=TOPICS)
def test_spec_makes_sense(spec: TopicSpec) -> None:
    """Names, services, retention and bounds are those of a real topic."""
    assert spec.name.startswith("binnacle.")
    assert spec.name.endswith(".v1")
    assert {*spec.producers, *spec.consumers} <= _SERVICES
    assert (spec.retention is None) == spec.compacted
    assert spec.partitions >= 1
    assert spec.doc.endswith(".")


def test_every_event_message_has_one_topic() -> None:
    """One message type a topic, and no event message without one."""
    messages = set()
    for module in pkgutil.iter_modules(binnacle.events.v1.__path__):
        loaded = importlib.import_module(f"binnacle.events.v1.{module.name}")
        messages |= {
            message.full_name
            for message in loaded.DESCRIPTOR.message_types_by_name.values()
            if message.name.lower() == module.name.removesuffix("_pb2").replace("_", "")
        }
    assert sorted(spec.message for spec in TOPICS.values()) == sorted(messages)


def test_constants_are_the_registered_names() -> None:
    """Every constant names a topic, every topic has a constant."""
    constants = {value for name, value in vars(topics).items() if name.isupper() and str(value).endswith(".v1")}
    assert constants - {"binnacle.events.v1"} == set(TOPICS)


def test_names_of_groups_and_dead_letters() -> None:
    """A group's dead letters and its Kafka group are named after topic and group."""
    assert dead_letter_topic("t.v1", "analytics") == "t.v1.analytics.dlq"
    assert consumer_group("t.v1", "analytics") == "analytics.t.v1"
