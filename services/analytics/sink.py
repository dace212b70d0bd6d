"""Kafka → ClickHouse: keeps a consumer going through outages of either side, for as long as the service runs.

A background task of `services.analytics`, wired in `bootstrap.py`. It speaks to aiokafka directly, because it
hands on bytes in large batches, which no event handler does.
"""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from contextlib import asynccontextmanager

import structlog
from aiokafka import AIOKafkaConsumer, AIOKafkaProducer
from aiokafka.errors import KafkaError

from servicekit.errors import BackendUnavailable, BinnacleError
from servicekit.events.dead_letters import DeadLetter
from servicekit.ports.analytics_store import AnalyticsStore
from servicekit.ports.clock import Clock
from services.analytics.progress import ProgressKeeper
from services.analytics.sink_health import SinkHealth
from services.analytics.sink_session import BrokerLostError, SinkSession, SinkSettings
from services.analytics.tables import TopicTable, read_tables
from services.analytics.writing import BatchWriter

log = structlog.get_logger()

_RETRY_S = 1.0
_SESSION_MS = 6_000
_HEARTBEAT_MS = 2_000
_FETCH_WAIT_MS = 100
# A topic that came late is noticed after this long; aiokafka's own is 5 minutes.
_METADATA_AGE_MS = 15_000
_SEND_WITHIN_S = 10.0
_STOP_WITHIN_S = 5.0


class Sink:
    """`instance`, unique among replicas, makes its membership static: a restart spares the session timeout.

    `create_topics` is awaited before each session: a consumer that asks for a topic that is not there makes Kafka
    create it with the cluster's own defaults, and does not see it for minutes.
    """

    def __init__(
        self,
        store: AnalyticsStore,
        *,
        servers: Sequence[str],
        instance: str | None,
        create_topics: Callable[[], Awaitable[None]],
        clock: Clock,
        settings: SinkSettings,
    ) -> None:
        self._store = store
        self._servers = list(servers)
        self._instance = instance
        self._create_topics = create_topics
        self._clock = clock
        self._settings = settings
        self.health = SinkHealth(settings.group)

    async def run(self) -> None:
        """Until cancelled."""
        while True:
            try:
                tables = await read_tables(self._store)
                await self._create_topics()
                await self._run_session(tables)
            except (BinnacleError, BrokerLostError, KafkaError, OSError) as error:
                self.health.no_session = repr(error)[:200]
                log.warning("sink.session_ended", error=repr(error), retry_in_s=_RETRY_S)
                await asyncio.sleep(_RETRY_S)

    async def _run_session(self, tables: Mapping[str, TopicTable]) -> None:
        dead_letters = DeadLetterSender(self._servers)
        writer = BatchWriter(
            self._store,
            group=self._settings.group,
            send_dead_letter=dead_letters.send,
            limits=self._settings.dead_letter_limits,
            clock=self._clock,
        )
        try:
            async with self._consumer() as consumer:
                session = SinkSession(
                    consumer,
                    tables=tables,
                    writer=writer,
                    clock=self._clock,
                    settings=self._settings,
                    health=self.health,
                    progress=ProgressKeeper(consumer, self._store, clock=self._clock),
                )
                await session.run()
        finally:
            await dead_letters.close()

    @asynccontextmanager
    async def _consumer(self) -> AsyncIterator[AIOKafkaConsumer]:
        consumer = AIOKafkaConsumer(
            bootstrap_servers=self._servers,
            group_id=self._settings.group,
            group_instance_id=self._instance,
            enable_auto_commit=False,
            auto_offset_reset="earliest",
            session_timeout_ms=_SESSION_MS,
            heartbeat_interval_ms=_HEARTBEAT_MS,
            fetch_max_wait_ms=_FETCH_WAIT_MS,
            metadata_max_age_ms=_METADATA_AGE_MS,
        )
        try:
            await consumer.start()
            yield consumer
        finally:
            await _stopped(consumer)


class DeadLetterSender:
    """Sends dead letters; connects when the first one comes."""

    def __init__(self, servers: Sequence[str]) -> None:
        self._servers = list(servers)
        self._producer: AIOKafkaProducer | None = None
        self._starting = asyncio.Lock()

    async def send(self, letter: DeadLetter) -> None:
        """Send and wait for the acknowledgement.

        Raises:
            BackendUnavailable: not acknowledged within 10 s.
        """
        try:
            async with asyncio.timeout(_SEND_WITHIN_S):
                producer = await self._started()
                await producer.send_and_wait(
                    letter.topic, key=letter.key, value=letter.value, headers=list(letter.headers)
                )
        except (KafkaError, TimeoutError, OSError) as error:
            raise BackendUnavailable(
                f"kafka did not take a dead letter for {letter.topic}: {error!r}", reason="DEAD_LETTER_NOT_SENT"
            ) from error

    async def close(self) -> None:
        """Disconnect."""
        if self._producer is not None:
            await _stopped(self._producer)

    async def _started(self) -> AIOKafkaProducer:
        async with self._starting:
            if self._producer is None:
                producer = AIOKafkaProducer(bootstrap_servers=self._servers, acks="all", enable_idempotence=True)
                try:
                    await producer.start()
                except BaseException:
                    await _stopped(producer)
                    raise
                self._producer = producer
        return self._producer


async def _stopped(client: AIOKafkaConsumer | AIOKafkaProducer) -> None:
    """Stop a client that may have lost its broker, which must not keep the service from ending.

    In a task of its own: a client without its broker lets the cancellation of its own tasks escape from `stop`.
    """
    stopping = asyncio.create_task(client.stop())
    try:
        _done, left = await asyncio.wait({stopping}, timeout=_STOP_WITHIN_S)
    finally:
        stopping.cancel()
    if left or stopping.cancelled() or stopping.exception() is not None:
        log.warning("sink.client_left_behind", client=type(client).__name__)
