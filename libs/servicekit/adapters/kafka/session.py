"""One life of aiokafka's producer: sends, tells when it can send no more, and lets go without hanging.

Used by `publisher.py`; replaced by `SessionKeeper` when the broker is reborn elsewhere or the client gave up.
"""

import asyncio
from collections.abc import Sequence
from functools import partial

import structlog
from aiokafka import AIOKafkaProducer
from aiokafka.client import AIOKafkaClient
from aiokafka.errors import (
    InvalidTopicError,
    KafkaConnectionError,
    KafkaError,
    KafkaTimeoutError,
    MessageSizeTooLargeError,
    RecordListTooLargeError,
    TopicAuthorizationFailedError,
    UnknownTopicOrPartitionError,
)
from aiokafka.structs import RecordMetadata

from servicekit.events.topics import MAX_EVENT_BYTES

log = structlog.get_logger()

# These speak of one record; any other error means that this producer is of no more use.
_OF_ONE_RECORD = (
    InvalidTopicError,
    KafkaTimeoutError,
    MessageSizeTooLargeError,
    RecordListTooLargeError,
    TopicAuthorizationFailedError,
    UnknownTopicOrPartitionError,
)
_REQUEST_TIMEOUT_MS = 10_000
_BATCH_BYTES = 128 * 1024
_CLOSE_S = 3.0
_ENVELOPE_ROOM_BYTES = 64 * 1024
_ANSWER_S = 5.0

Headers = Sequence[tuple[str, bytes | None]]
Address = tuple[str, int]


class SessionBroken(Exception):  # noqa: N818  # a state, after which the caller takes the next session
    """This session can send no more; what it had not acknowledged is unknown."""


class ProducerSession:
    """An idempotent producer (acks=all, lz4) with the broker addresses that it knows."""

    def __init__(self, producer: AIOKafkaProducer) -> None:
        self._producer = producer
        self._open: set[asyncio.Future[RecordMetadata]] = set()
        self.broken = asyncio.Event()
        # Broken, or so slow that it is to be checked now.
        self.doubted = asyncio.Event()

    @classmethod
    async def start(cls, servers: Sequence[str]) -> "ProducerSession":
        """Connect.

        Raises:
            KafkaError: no server answers.
        """
        producer = AIOKafkaProducer(
            bootstrap_servers=list(servers),
            enable_idempotence=True,
            acks="all",
            compression_type="lz4",
            linger_ms=0,
            max_batch_size=_BATCH_BYTES,
            max_request_size=MAX_EVENT_BYTES + _ENVELOPE_ROOM_BYTES,
            request_timeout_ms=_REQUEST_TIMEOUT_MS,
        )
        session = cls(producer)
        try:
            await producer.start()
        except BaseException:
            session.broken.set()  # it never lived: nothing to warn of
            await session.discard()
            raise
        return session

    def known_partitions(self, topic: str) -> int:
        """How many partitions the topic has by the metadata at hand; 0 if that does not tell."""
        return len(self._producer.client.cluster.partitions_for_topic(topic) or ())

    async def partitions_for(self, topic: str) -> list[int]:
        """The partitions of a topic, ascending; waits for metadata, which may create the topic."""
        return sorted(await self._producer.partitions_for(topic))

    async def send(
        self,
        topic: str,
        partition: int,
        *,
        key: bytes | None,
        value: bytes | None,
        headers: Headers,
        time_ms: int | None = None,
    ) -> asyncio.Future[RecordMetadata]:
        """Hand over a record of `time_ms` since 1970 (None: now); the future is its acknowledgement.

        If this raises, or is cancelled, the record was not handed over.

        Raises:
            KafkaError: the record is refused, or the buffer stays full.
            SessionBroken: take the next session.
        """
        try:
            sent = await self._producer.send(
                topic, value, key=key, partition=partition, timestamp_ms=time_ms, headers=list(headers)
            )
        except _OF_ONE_RECORD:
            raise
        except (KafkaError, AssertionError) as exc:
            self.give_up(exc)
            raise SessionBroken(str(exc)) from exc
        outcome: asyncio.Future[RecordMetadata] = asyncio.get_running_loop().create_future()
        self._open.add(outcome)
        sent.add_done_callback(partial(self._conclude, outcome))
        return outcome

    def _conclude(self, outcome: asyncio.Future[RecordMetadata], sent: asyncio.Future[RecordMetadata]) -> None:
        self._open.discard(outcome)
        error = None if sent.cancelled() else sent.exception()
        if outcome.done():
            return
        if error is None and not sent.cancelled():
            outcome.set_result(sent.result())
        elif isinstance(error, _OF_ONE_RECORD):
            outcome.set_exception(error)
        else:
            outcome.set_exception(SessionBroken(repr(error)))
            self.give_up(error or KafkaError("cancelled"))

    def give_up(self, cause: BaseException) -> None:
        """Declare the session broken; whoever waits for an acknowledgement learns it at once."""
        if not self.broken.is_set():
            log.warning("kafka.session_broken", error=repr(cause), unacknowledged=len(self._open))
        self.broken.set()
        self.doubted.set()
        for outcome in list(self._open):
            if not outcome.done():
                outcome.set_exception(SessionBroken(repr(cause)))
        self._open.clear()

    async def answers(self) -> bool:
        """Whether one of the known brokers answers now, over the connection that sends use."""
        try:
            async with asyncio.timeout(_ANSWER_S):
                return bool(await self._producer.client.force_metadata_update())
        except TimeoutError:
            return False

    def addresses(self) -> set[Address]:
        """Where the known brokers listen."""
        return {(broker.host, broker.port) for broker in self._producer.client.cluster.brokers()}

    async def close(self) -> None:
        """Wait for what was handed over, a few seconds at most, and disconnect."""
        try:
            async with asyncio.timeout(_CLOSE_S):
                await self._producer.flush()
                await self._producer.stop()
        except TimeoutError:
            await self.discard()

    async def discard(self) -> None:
        """Disconnect at once. aiokafka's own stop waits for ever when the broker is gone."""
        self.give_up(KafkaConnectionError("the session was discarded"))
        producer = self._producer
        try:
            async with asyncio.timeout(_CLOSE_S):
                await producer._sender.close()  # noqa: SLF001  # no public way to stop without flushing
        except (TimeoutError, KafkaError) as exc:
            log.warning("kafka.session_left_behind", error=repr(exc))
        producer._closed = True  # noqa: SLF001  # as above; else it warns of being left open
        await producer.client.close()


async def find_brokers(servers: Sequence[str]) -> set[Address]:
    """Ask the bootstrap servers afresh where the brokers are; empty if none answers."""
    client = AIOKafkaClient(bootstrap_servers=list(servers), request_timeout_ms=_REQUEST_TIMEOUT_MS)
    try:
        async with asyncio.timeout(_ANSWER_S):
            await client.bootstrap()
        return {(broker.host, broker.port) for broker in client.cluster.brokers()}
    except (KafkaError, TimeoutError):
        return set()
    finally:
        await client.close()


class SessionKeeper:
    """Holds the session in use and replaces it when it is broken or its brokers have moved."""

    def __init__(self, servers: Sequence[str]) -> None:
        self._servers = servers
        self._session: ProducerSession | None = None
        self._live = asyncio.Event()

    async def open(self) -> None:
        """Connect; raises KafkaError if no server answers."""
        self._session = await ProducerSession.start(self._servers)
        self._live.set()

    async def live(self) -> ProducerSession:
        """A session that can send; waits for one, without bound."""
        while True:
            await self._live.wait()
            session = self._session
            if session is not None and not session.broken.is_set():
                return session
            self._live.clear()

    def usable(self) -> ProducerSession | None:
        """The session that `live` would give at once; None while there is none, or the one there is is doubted."""
        session = self._session
        if session is None or not self._live.is_set() or session.doubted.is_set():
            return None
        return session

    def doubt(self) -> None:
        """Let nobody use the session before it was checked: it did not acknowledge in time."""
        if self._session is not None:
            self._session.doubted.set()

    @property
    def current(self) -> ProducerSession | None:
        """The session in use, or None between two."""
        return self._session

    async def check(self) -> bool:
        """Replace the session if need be; whether the brokers have moved, so that consumers must follow.

        Raises:
            KafkaError: a new session is needed and cannot be had now; check again.
        """
        session = self._session
        if session is not None and session.doubted.is_set() and not session.broken.is_set():
            self._live.clear()
            session.doubted.clear()
        moved = session is not None and await self._has_moved(session)
        if moved and session is not None:
            session.give_up(KafkaConnectionError("the brokers have moved"))
        if session is not None and session.broken.is_set():
            self._live.clear()
            self._session = None
            await session.discard()
        if self._session is None:
            await self.open()
            log.info("kafka.session_renewed", moved=moved)
        return moved

    async def _has_moved(self, session: ProducerSession) -> bool:
        if await session.answers():
            self._live.set()
            return False
        # Away: until it answers again nothing is handed over, so that nothing is numbered in vain.
        self._live.clear()
        found = await find_brokers(self._servers)
        return bool(found) and not found & session.addresses()

    async def close(self) -> None:
        """Let the session finish, if it is of use, and disconnect."""
        usable, session = self.usable(), self._session
        self._live.clear()
        self._session = None
        if session is not None:
            await (session.discard() if usable is None else session.close())
