"""How topics of the registry are set, and where those of a broker differ. Nothing here changes a topic.

Used by `topic_setup.py`, which creates what is missing, and by `binnacle topics`.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import timedelta

from aiokafka.admin import AIOKafkaAdminClient
from aiokafka.admin.config_resource import ConfigResource, ConfigResourceType
from aiokafka.errors import BrokerResponseError, IncompatibleBrokerVersion

from servicekit.errors import NotReady
from servicekit.events.topics import TopicSpec

PARTITIONS = "partitions"
_ENVELOPE_ROOM_BYTES = 64 * 1024
_DEAD_LETTER_RETENTION = timedelta(days=7)


@dataclass(frozen=True, slots=True)
class TopicDifference:
    """One setting of a topic that is not what the registry says."""

    topic: str
    setting: str
    found: str
    registered: str


def settings_of(name: str, spec: TopicSpec) -> Mapping[str, str]:
    """The broker's settings of a topic of the registry, or of one beside it such as its dead letters."""
    settings = {"max.message.bytes": str(spec.max_bytes + _ENVELOPE_ROOM_BYTES)}
    if spec.compacted and name == spec.name:
        return {**settings, "cleanup.policy": "compact"}
    retention = spec.retention or _DEAD_LETTER_RETENTION
    return {**settings, "cleanup.policy": "delete", "retention.ms": str(retention // timedelta(milliseconds=1))}


def differences(name: str, spec: TopicSpec, *, found: Mapping[str, str]) -> Sequence[TopicDifference]:
    """What of `found`, as `read_topics` gives it, is not as registered."""
    registered = {PARTITIONS: str(spec.partitions), **settings_of(name, spec)}
    return [
        TopicDifference(name, setting, found.get(setting, "unknown"), value)
        for setting, value in registered.items()
        if found.get(setting) != value
    ]


async def read_topics(servers: Sequence[str], names: Iterable[str]) -> Mapping[str, Mapping[str, str]]:
    """The settings, `partitions` among them, of those of the topics that the broker has.

    Raises:
        KafkaError: no broker answers.
        NotReady: the broker does not tell its topics' settings (NO_ADMINISTRATION), as the embedded one.
    """
    admin = AIOKafkaAdminClient(bootstrap_servers=list(servers))
    try:
        await admin.start()
        present = sorted(set(names) & set(await admin.list_topics()))  # to describe an absent one might create it
        partitions = {one["topic"]: len(one["partitions"]) for one in await admin.describe_topics(present)}
        settings = await _describe(admin, present)
    except (AttributeError, LookupError, ValueError, BrokerResponseError, IncompatibleBrokerVersion) as exc:
        raise NotReady(f"the broker does not tell how its topics are set: {exc!r}", reason="NO_ADMINISTRATION") from exc
    finally:
        await admin.close()
    return {name: {PARTITIONS: str(partitions[name]), **settings.get(name, {})} for name in present}


async def _describe(admin: AIOKafkaAdminClient, names: Sequence[str]) -> Mapping[str, Mapping[str, str]]:
    if not names:
        return {}
    answers = await admin.describe_configs([ConfigResource(ConfigResourceType.TOPIC, name) for name in names])
    return {
        resource[3]: {entry[0]: str(entry[1]) for entry in resource[4]}
        for answer in answers
        for resource in answer.resources
    }
