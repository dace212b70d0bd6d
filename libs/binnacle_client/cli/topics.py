"""`binnacle topics`: every registered topic, and where the broker's differs from the registry."""

import asyncio
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import click
from aiokafka.errors import KafkaError

from binnacle_client.cli.output import print_json, print_table
from binnacle_client.connection import Connection
from servicekit.adapters.kafka.topic_settings import TopicDifference, differences, read_topics
from servicekit.errors import BackendTimeout, BackendUnavailable, NotReady
from servicekit.events.topics import TOPICS, TopicSpec

_NOT_AS_REGISTERED = 6
_WITHIN_S = 15.0


@dataclass(frozen=True, slots=True)
class TopicState:
    """A registered topic beside the broker's; `missing`: the broker has none of that name."""

    topic: str
    partitions: int
    retention_days: int | None
    missing: bool
    differences: Sequence[TopicDifference]

    @property
    def told(self) -> str:
        """The state for people."""
        if self.missing:
            return "missing"
        found = (f"{one.setting} is {one.found}, registered {one.registered}" for one in self.differences)
        return "; ".join(found) or "as registered"


@click.command()
@click.option("--json", "as_json", is_flag=True, help="One JSON object for each topic.")
def topics(as_json: bool) -> None:
    """List the registered topics and how the broker's differ. Exit status 6 when one is missing or differs."""
    found = asyncio.run(_read())
    states = [_compare(spec, found.get(spec.name)) for spec in TOPICS.values()]
    if as_json:
        for one in states:
            print_json(one)
    else:
        rows = [
            [one.topic, one.partitions, f"{one.retention_days} days" if one.retention_days else "by key", one.told]
            for one in states
        ]
        print_table("topics", ["topic", "partitions", "kept", "state"], rows)
    if any(one.missing or one.differences for one in states):
        raise click.exceptions.Exit(_NOT_AS_REGISTERED)


async def _read() -> Mapping[str, Mapping[str, str]]:
    servers = Connection.from_environment().kafka_bootstrap_servers
    if not servers:
        raise NotReady('KAFKA_BOOTSTRAP_SERVERS is not set: eval "$(binnacle env)", or name your Kafka\'s address')
    try:
        async with asyncio.timeout(_WITHIN_S):
            return await read_topics(servers.split(","), TOPICS)
    except TimeoutError as exc:
        raise BackendTimeout(f"Kafka at {servers} did not answer within {_WITHIN_S:g} s") from exc
    except KafkaError as exc:
        raise BackendUnavailable(f"Kafka at {servers} cannot be reached: {exc}", reason="KAFKA_UNAVAILABLE") from exc


def _compare(spec: TopicSpec, found: Mapping[str, str] | None) -> TopicState:
    return TopicState(
        topic=spec.name,
        partitions=spec.partitions,
        retention_days=spec.retention.days if spec.retention else None,
        missing=found is None,
        differences=() if found is None else differences(spec.name, spec, found=found),
    )


COMMANDS = (topics,)
