"""Finds dead letters on Kafka and puts them back, for `binnacle dlq`. Reads beside all groups, commits nothing."""

import asyncio
from collections.abc import AsyncIterator, Collection, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import UTC, datetime

from aiokafka import AIOKafkaConsumer, AIOKafkaProducer, ConsumerRecord, TopicPartition
from aiokafka.client import AIOKafkaClient
from aiokafka.errors import KafkaError
from google.protobuf.json_format import MessageToDict
from google.protobuf.message import DecodeError

from servicekit.errors import BackendUnavailable, NotReady
from servicekit.events.dead_letters import Burial, Headers, read_burial, replay_headers
from servicekit.events.topics import MAX_EVENT_BYTES, message_class, parse_dead_letter_topic, replay_topic
from servicekit.ports.event_bus import RejectedEvent

_ANSWER_S = 10.0
_POLL_MS = 500
_POLL_RECORDS = 500
_ENVELOPE_ROOM_BYTES = 64 * 1024


@dataclass(frozen=True, slots=True)
class FoundLetter:
    """A dead letter where it lies. `headers` are all of it, `original_headers` those that the record had."""

    topic: str
    partition: int
    offset: int
    time: datetime
    key: bytes | None
    value: bytes | None
    headers: Headers
    original_headers: Headers
    burial: Burial

    @property
    def place(self) -> str:
        """`partition:offset` on the dead-letter topic."""
        return f"{self.partition}:{self.offset}"

    @property
    def tenant(self) -> str:
        """Whose event it is, as its headers say; empty if they do not."""
        return (dict(self.original_headers).get("ce_tenant") or b"").decode("utf-8", "replace")

    def decoded(self) -> object:
        """The message as JSON types; hexadecimal under `undecodable_hex` where the bytes do not parse."""
        if self.value is None:
            return None
        message = message_class(self.burial.origin.topic)()
        try:
            message.ParseFromString(self.value)
        except DecodeError:
            return {"undecodable_hex": self.value.hex()}
        return MessageToDict(message, preserving_proto_field_name=True)


class DeadLetterDesk:
    """Reads and replays on the Kafka at `servers`; made by `open_desk`, which knows the topics."""

    def __init__(self, servers: str, partitions: Mapping[str, Collection[int]]) -> None:
        self._servers = servers
        self._partitions = partitions

    def topics(self, *, topic: str = "", group: str = "") -> Sequence[str]:
        """The dead-letter topics there are, of one topic or one group if asked."""
        return [
            name
            for name in sorted(self._partitions)
            if (found := parse_dead_letter_topic(name)) and topic in {"", found[0], name} and group in {"", found[1]}
        ]

    async def read(self, names: Collection[str]) -> AsyncIterator[FoundLetter]:
        """Every dead letter on these topics now, each partition in its order; what is none is left out.

        Raises:
            BackendUnavailable: the brokers stopped answering.
        """
        wanted = [TopicPartition(name, number) for name in names for number in self._partitions[name]]
        if not wanted:
            return
        consumer = AIOKafkaConsumer(
            bootstrap_servers=self._servers, enable_auto_commit=False, auto_offset_reset="earliest"
        )
        try:
            async with consumer:
                consumer.assign(wanted)
                async for record in _until_end(consumer, wanted):
                    if (letter := _letter(record)) is not None:
                        yield letter
        except KafkaError as exc:
            raise _unreachable(self._servers, exc) from exc

    async def replay(self, letters: Collection[FoundLetter]) -> int:
        """Put them on the replay topics of their groups; how many. Safe to repeat: a group counts each event once.

        Raises:
            NotReady: a replay topic is missing.
            BackendUnavailable: not all were acknowledged; repeat it.
        """
        targets = {letter.topic: self._target(letter) for letter in letters}
        producer = AIOKafkaProducer(
            bootstrap_servers=self._servers,
            acks="all",
            enable_idempotence=True,
            max_request_size=MAX_EVENT_BYTES + _ENVELOPE_ROOM_BYTES,
        )
        try:
            async with producer:
                for letter in letters:
                    target, partition = targets[letter.topic], letter.burial.origin.partition
                    async with asyncio.timeout(_ANSWER_S):
                        await producer.send_and_wait(
                            target,
                            letter.value,
                            key=letter.key,
                            partition=partition if partition in self._partitions[target] else None,
                            headers=list(replay_headers(letter.headers)),
                        )
        except (KafkaError, TimeoutError) as exc:
            raise _unreachable(self._servers, exc) from exc
        return len(letters)

    def _target(self, letter: FoundLetter) -> str:
        name = replay_topic(letter.burial.origin.topic, letter.burial.group)
        if name not in self._partitions:
            raise NotReady(
                f"topic {name} does not exist, so nobody reads it: start the consumer {letter.burial.group!r}, which "
                "makes it, and repeat",
                reason="REPLAY_TOPIC_MISSING",
            )
        return name


@asynccontextmanager
async def open_desk(servers: str) -> AsyncIterator[DeadLetterDesk]:
    """Ask the Kafka at `servers` for its topics.

    Raises:
        NotReady: no address is given.
        BackendUnavailable: it does not answer.
    """
    if not servers:
        raise NotReady('KAFKA_BOOTSTRAP_SERVERS is not set: eval "$(binnacle env)", or name your Kafka\'s address')
    client = AIOKafkaClient(bootstrap_servers=servers)
    try:
        async with asyncio.timeout(_ANSWER_S):
            await client.bootstrap()
            cluster = await client.fetch_all_metadata()
    except (KafkaError, TimeoutError) as exc:
        raise _unreachable(servers, exc) from exc
    finally:
        await client.close()
    yield DeadLetterDesk(servers, {name: cluster.partitions_for_topic(name) or () for name in cluster.topics()})


async def _until_end(consumer: AIOKafkaConsumer, partitions: Sequence[TopicPartition]) -> AsyncIterator[ConsumerRecord]:
    """Everything from the oldest record to what is the newest one at the start."""
    ends = await consumer.end_offsets(partitions)
    starts = await consumer.beginning_offsets(partitions)
    left = {one for one in partitions if starts[one] < ends[one]}
    consumer.pause(*(set(partitions) - left))
    for one in left:
        consumer.seek(one, starts[one])
    loop = asyncio.get_running_loop()
    heard_s = loop.time()
    while left:
        fetched = await consumer.getmany(timeout_ms=_POLL_MS, max_records=_POLL_RECORDS)
        for records in fetched.values():
            heard_s = loop.time()
            for record in records:
                yield record
        left = {one for one in left if await consumer.position(one) < ends[one]}
        if loop.time() - heard_s > _ANSWER_S:
            raise BackendUnavailable(f"Kafka gave no record for {_ANSWER_S:g} s", reason="KAFKA_UNAVAILABLE")


def _letter(record: ConsumerRecord) -> FoundLetter | None:
    try:
        burial, original = read_burial(record.headers)
    except RejectedEvent:
        return None
    return FoundLetter(
        topic=record.topic,
        partition=record.partition,
        offset=record.offset,
        time=datetime.fromtimestamp(record.timestamp / 1000, UTC),
        key=record.key,
        value=record.value,
        headers=tuple(record.headers),
        original_headers=original,
        burial=burial,
    )


def _unreachable(servers: str, exc: Exception) -> BackendUnavailable:
    return BackendUnavailable(f"Kafka at {servers} does not answer: {exc!r}", reason="KAFKA_UNAVAILABLE")
