"""The registry of topics: what each carries, who writes and reads it, how it is kept.

Constants for code, `TOPICS` for generators (topic documents, broker set-up, descriptor sets) and adapters.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import timedelta
from importlib import import_module
from types import MappingProxyType

from google.protobuf import descriptor_pool, message_factory
from google.protobuf.message import Message

INTERACTION_COMPLETED = "binnacle.interaction.completed.v1"
GUARDRAIL_DECIDED = "binnacle.guardrail.decided.v1"
FEEDBACK_RECORDED = "binnacle.feedback.recorded.v1"
EVALUATION_SCORED = "binnacle.evaluation.scored.v1"
DRIFT_ALERTED = "binnacle.drift.alerted.v1"
DOCUMENT_SUBMITTED = "binnacle.document.submitted.v1"
DOCUMENT_INDEXED = "binnacle.document.indexed.v1"
PRODUCER_REPORTED = "binnacle.producer.reported.v1"
CONFIG_CHANGED = "binnacle.config.changed.v1"
AUDIT_RECORDED = "binnacle.audit.recorded.v1"
EVALUATION_REQUESTED = "binnacle.evaluation.requested.v1"

# Redacted text lives a week in Kafka; what holds no text may stay longer, for replays of a month.
_TEXT = timedelta(days=7)
_NO_TEXT = timedelta(days=30)
_PACKAGE = "binnacle.events.v1"

MAX_EVENT_BYTES = 8 * 1024 * 1024


@dataclass(frozen=True, slots=True)
class TopicSpec:
    """One topic. `message` is the protobuf full name; `retention` is None where compaction keeps the last.

    `consumers` are the services that read it now (an eviction that one of them missed is a gap); see
    `consumer_group` for the Kafka groups they read in. `max_bytes` bounds one message.
    """

    name: str
    message: str
    key: str
    partitions: int
    retention: timedelta | None
    producers: tuple[str, ...]
    consumers: tuple[str, ...]
    doc: str
    compacted: bool = False
    max_bytes: int = 1024 * 1024


def dead_letter_topic(topic: str, group: str) -> str:
    """Where `group` puts the events of `topic` that it can never handle."""
    return f"{topic}.{group}.dlq"


def replay_topic(topic: str, group: str) -> str:
    """Where dead letters come back to `group`, which reads it beside `topic`; no other group does."""
    return f"{topic}.{group}.replay"


def parse_dead_letter_topic(name: str) -> tuple[str, str] | None:
    """The registered topic and the group whose dead letters `name` holds; None if it holds none."""
    if not name.endswith(".dlq"):
        return None
    topic = next((topic for topic in TOPICS if name.startswith(f"{topic}.")), None)
    group = name.removeprefix(f"{topic}.").removesuffix(".dlq")
    return (topic, group) if topic and group and dead_letter_topic(topic, group) == name else None


def consumer_group(topic: str, group: str) -> str:
    """The Kafka group in which `group` reads `topic`: one for each, so that no topic's rebalance stops another."""
    return f"{group}.{topic}"


def message_class(topic: str) -> type[Message]:
    """The protobuf class of a registered topic; its module is imported on first use.

    Raises:
        KeyError: the topic is not registered.
    """
    full_name = TOPICS[topic].message
    package, _, name = full_name.rpartition(".")
    snake = re.sub(r"(?<=[a-z0-9])(?=[A-Z])", "_", name).lower()
    import_module(f"{package}.{snake}_pb2")
    descriptor = descriptor_pool.Default().FindMessageTypeByName(full_name)
    return message_factory.GetMessageClass(descriptor)


_SPECS = (
    TopicSpec(
        name=INTERACTION_COMPLETED,
        message=f"{_PACKAGE}.InteractionCompleted",
        key="request id",
        partitions=12,
        retention=_TEXT,
        producers=("gateway",),
        consumers=("analytics", "evaluator", "drift_monitor"),
        doc="Exactly one for every accepted request, whatever its end: all that explains and bills it.",
        max_bytes=4 * 1024 * 1024,
    ),
    TopicSpec(
        name=GUARDRAIL_DECIDED,
        message=f"{_PACKAGE}.GuardrailDecided",
        key="request id",
        partitions=12,
        retention=_NO_TEXT,
        producers=("guardrail",),
        consumers=("analytics", "drift_monitor"),
        doc="One for each check of an input, of retrieved text or of an output. Holds no text.",
    ),
    TopicSpec(
        name=FEEDBACK_RECORDED,
        message=f"{_PACKAGE}.FeedbackRecorded",
        key="request id",
        partitions=6,
        retention=_TEXT,
        producers=("gateway",),
        consumers=("analytics", "evaluator"),
        doc="What somebody thinks of an answer: rating, thumbs, correction or label.",
    ),
    TopicSpec(
        name=EVALUATION_SCORED,
        message=f"{_PACKAGE}.EvaluationScored",
        key="request id",
        partitions=12,
        retention=_NO_TEXT,
        producers=("evaluator",),
        consumers=("analytics", "drift_monitor"),
        doc="The value of one metric for one answer, or the reason why it could not be measured.",
    ),
    TopicSpec(
        name=DRIFT_ALERTED,
        message=f"{_PACKAGE}.DriftAlerted",
        key="alert key",
        partitions=3,
        retention=None,
        compacted=True,
        producers=("drift_monitor",),
        consumers=("analytics",),
        doc="One for each change of an alert; an empty value (tombstone) some time after its resolution.",
    ),
    TopicSpec(
        name=DOCUMENT_SUBMITTED,
        message=f"{_PACKAGE}.DocumentSubmitted",
        key="document id",
        partitions=12,
        retention=_TEXT,
        producers=("retriever",),
        consumers=("retriever",),
        doc="A document to index, from the retriever's RPC or any upstream system with write access.",
        max_bytes=MAX_EVENT_BYTES,
    ),
    TopicSpec(
        name=DOCUMENT_INDEXED,
        message=f"{_PACKAGE}.DocumentIndexed",
        key="document id",
        partitions=6,
        retention=_NO_TEXT,
        producers=("retriever",),
        consumers=("analytics",),
        doc="What became of a document. Holds no text.",
    ),
    TopicSpec(
        name=PRODUCER_REPORTED,
        message=f"{_PACKAGE}.ProducerReported",
        key="producer",
        partitions=3,
        retention=_NO_TEXT,
        producers=("gateway", "retriever", "guardrail", "evaluator", "drift_monitor"),
        consumers=("analytics",),
        doc="How far the events of one process start are safe, every 10 s and at a clean stop.",
    ),
    TopicSpec(
        name=CONFIG_CHANGED,
        message=f"{_PACKAGE}.ConfigChanged",
        key="config key",
        partitions=1,
        retention=None,
        compacted=True,
        producers=(),
        consumers=(),
        doc="Reserved for the control plane: releases, prompts, routes and policies as they change.",
    ),
    TopicSpec(
        name=AUDIT_RECORDED,
        message=f"{_PACKAGE}.AuditRecorded",
        key="audit id",
        partitions=3,
        retention=_NO_TEXT,
        producers=(),
        consumers=(),
        doc="Reserved for the control plane: who did what to what.",
    ),
    TopicSpec(
        name=EVALUATION_REQUESTED,
        message=f"{_PACKAGE}.EvaluationRequested",
        key="request id",
        partitions=6,
        retention=_TEXT,
        producers=(),
        consumers=(),
        doc="Reserved for the control plane: an answer to be scored on request.",
    ),
)

TOPICS: Mapping[str, TopicSpec] = MappingProxyType({spec.name: spec for spec in _SPECS})
