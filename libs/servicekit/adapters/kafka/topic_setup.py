"""Creates the registered topics on a Kafka that lacks them; called when the bus is opened.

The embedded broker has no administration and creates a topic on first use, and a cluster may keep its topics
to itself: a refusal is logged, and the bus goes on.
"""

import asyncio
from collections.abc import Iterable, Mapping, Sequence

import structlog
from aiokafka.admin import AIOKafkaAdminClient, NewTopic
from aiokafka.client import AIOKafkaClient
from aiokafka.errors import KafkaError, TopicAlreadyExistsError, for_code

from servicekit.adapters.kafka.topic_settings import differences, read_topics, settings_of
from servicekit.errors import NotReady
from servicekit.events.topics import TOPICS, TopicSpec, dead_letter_topic, replay_topic

log = structlog.get_logger()

_WITHIN_S = 15.0
_ASK_AGAIN_S = 0.02
_MAX_REPLICAS = 3


async def create_missing_topics(servers: Sequence[str], *, dead_letters: Iterable[tuple[str, str]] = ()) -> None:
    """Create what is registered, and for each (topic, group) its dead letters and replays; never raises KafkaError."""
    wanted = {spec.name: spec for spec in TOPICS.values()}
    wanted |= {
        name(topic, group): TOPICS[topic]
        for topic, group in dead_letters
        for name in (dead_letter_topic, replay_topic)
        if topic in TOPICS
    }
    try:
        async with asyncio.timeout(_WITHIN_S):
            missing, brokers = await _missing(servers, wanted)
            if missing:
                created = await _create(servers, missing, replicas=min(_MAX_REPLICAS, brokers))
                await _wait_until_known(servers, created)
            await _report_differences(servers, {name: spec for name, spec in wanted.items() if name not in missing})
    except (KafkaError, TimeoutError, OSError) as exc:
        log.info("kafka.topics_not_created", error=repr(exc), remedy="create them, or let first use do it")


async def _missing(servers: Sequence[str], wanted: Mapping[str, TopicSpec]) -> tuple[dict[str, TopicSpec], int]:
    """What the cluster lacks, and how many brokers it has."""
    client = AIOKafkaClient(bootstrap_servers=list(servers))
    try:
        await client.bootstrap()
        cluster = await client.fetch_all_metadata()
        present = cluster.topics(exclude_internal_topics=False)
    finally:
        await client.close()
    missing = {name: spec for name, spec in wanted.items() if name not in present}
    return missing, len(cluster.brokers())


async def _report_differences(servers: Sequence[str], present: Mapping[str, TopicSpec]) -> None:
    """Say what is not as registered; a person decides, since a change moves keys to other partitions or deletes."""
    try:
        found = await read_topics(servers, present)
    except NotReady as exc:
        log.info("kafka.topics_not_compared", error=exc.message)
        return
    for name, settings in found.items():
        for one in differences(name, present[name], found=settings):
            log.warning(
                "kafka.topic_differs", topic=name, setting=one.setting, found=one.found, registered=one.registered
            )


async def _create(servers: Sequence[str], missing: Mapping[str, TopicSpec], *, replicas: int) -> set[str]:
    admin = AIOKafkaAdminClient(bootstrap_servers=list(servers))
    try:
        await admin.start()
        topics = [new_topic(name, spec, replicas=replicas) for name, spec in missing.items()]
        response = await admin.create_topics(topics)
    except (AttributeError, LookupError, ValueError) as exc:
        # A broker that does not speak the administration protocol at all, as the embedded one.
        log.info("kafka.no_administration", error=repr(exc))
        return set()
    finally:
        await admin.close()
    created = set()
    for topic, code, *rest in response.topic_errors:
        error = for_code(code)
        if not code:
            created.add(topic)
        elif error is not TopicAlreadyExistsError:
            log.warning("kafka.topic_refused", topic=topic, error=error.__name__, message=rest)
    log.info("kafka.topics_created", topics=sorted(created))
    return created


async def _wait_until_known(servers: Sequence[str], created: set[str]) -> None:
    """Brokers learn of a topic a moment after its creation; who asks meanwhile takes it for unknown, for minutes."""
    client = AIOKafkaClient(bootstrap_servers=list(servers))
    try:
        await client.bootstrap()
        while not created <= (await client.fetch_all_metadata()).topics():  # noqa: ASYNC110  # brokers do not call back
            await asyncio.sleep(_ASK_AGAIN_S)
    finally:
        await client.close()


def new_topic(name: str, spec: TopicSpec, *, replicas: int) -> NewTopic:
    """How a topic of the registry, or the dead letters or replays of one, is to be made.

    aiokafka speaks a version of the request that cannot leave the replicas to the cluster.
    """
    return NewTopic(
        name=name,
        num_partitions=spec.partitions,
        replication_factor=replicas,
        topic_configs=dict(settings_of(name, spec)),
    )
