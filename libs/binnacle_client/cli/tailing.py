"""`binnacle tail TOPIC`: events as they come, decoded to JSON."""

import asyncio
from collections.abc import AsyncIterator

import click
from aiokafka import AIOKafkaConsumer, ConsumerRecord
from aiokafka.errors import KafkaError
from google.protobuf.json_format import MessageToDict
from google.protobuf.message import DecodeError

from binnacle_client.cli.output import console, print_json
from binnacle_client.connection import Connection
from servicekit.errors import BackendUnavailable, InvalidRequest, NotReady
from servicekit.events.topics import TOPICS, TopicSpec, message_class


@click.command()
@click.argument("topic")
@click.option("--from-beginning", is_flag=True, help="Begin with the oldest record kept.")
@click.option("--limit", default=0, help="Stop after this many.  [default: never]")
@click.option("--json", "as_json", is_flag=True, help="One JSON object for each event, envelope included.")
def tail(topic: str, from_beginning: bool, limit: int, as_json: bool) -> None:
    """Print the events of TOPIC: its full name, or enough of it to be the only one (`interaction`)."""
    spec = find_topic(topic)

    async def run() -> None:
        count = 0
        async for record in _records(spec, from_beginning=from_beginning):
            _print_event(spec, record, as_json=as_json)
            count += 1
            if count == limit:
                return

    asyncio.run(run())


def find_topic(name: str) -> TopicSpec:
    """The topic of that name, or the only one whose name holds it."""
    if name in TOPICS:
        return TOPICS[name]
    found = [spec for spec in TOPICS.values() if name in spec.name]
    if len(found) == 1:
        return found[0]
    told = f"{len(found)} topics match" if found else "no topic matches"
    raise InvalidRequest(f"topic: {told} {name!r}; there are {', '.join(sorted(TOPICS))}", field="topic")


async def _records(spec: TopicSpec, *, from_beginning: bool) -> AsyncIterator[ConsumerRecord]:
    servers = Connection.from_environment().kafka_bootstrap_servers
    if not servers:
        raise NotReady('KAFKA_BOOTSTRAP_SERVERS is not set: eval "$(binnacle env)", or name your Kafka\'s address')
    consumer = AIOKafkaConsumer(
        spec.name, bootstrap_servers=servers, auto_offset_reset="earliest" if from_beginning else "latest"
    )
    try:
        await consumer.start()
    except KafkaError as exc:
        raise BackendUnavailable(f"Kafka at {servers} cannot be reached: {exc}", reason="KAFKA_UNAVAILABLE") from exc
    try:
        async for record in consumer:
            yield record
    finally:
        await consumer.stop()


def _print_event(spec: TopicSpec, record: ConsumerRecord, *, as_json: bool) -> None:
    headers = {name: value.decode("utf-8", "replace") for name, value in record.headers}
    key = (record.key or b"").decode("utf-8", "replace")
    value = _decode(spec, record.value)
    if as_json:
        place = {"topic": record.topic, "partition": record.partition, "offset": record.offset, "key": key}
        print_json({**place, "headers": headers, "value": value})
    else:
        console.print(f"{record.partition}:{record.offset} {key}", style="bold", markup=False)
        console.print_json(data=value)


def _decode(spec: TopicSpec, value: bytes | None) -> object:
    if value is None:
        return None
    message = message_class(spec.name)()
    try:
        message.ParseFromString(value)
    except DecodeError:
        return {"undecodable_hex": value.hex()}
    return MessageToDict(message, preserving_proto_field_name=True)


COMMANDS = (tail,)
