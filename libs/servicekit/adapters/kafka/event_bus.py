"""The event bus on Kafka: publishing with acknowledgements, consuming in groups, and staying connected.

Opened by `servicekit.adapters.registry` for `kafka://`; composes publisher, consumers and the watch over both.
"""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable, Coroutine
from pathlib import Path
from typing import Any

import structlog
from aiokafka.errors import KafkaError

from servicekit.adapters.kafka.address import KafkaAddress, parse_address
from servicekit.adapters.kafka.consumers import KafkaConsumers
from servicekit.adapters.kafka.delivery import Delivery
from servicekit.adapters.kafka.draining import Drain
from servicekit.adapters.kafka.publisher import KafkaPublisher
from servicekit.adapters.kafka.quiet import quieten_aiokafka
from servicekit.adapters.kafka.session import SessionKeeper
from servicekit.adapters.kafka.spool import Spool, open_spool
from servicekit.adapters.kafka.topic_setup import create_missing_topics
from servicekit.domain.identity import ServiceIdentity
from servicekit.errors import BackendUnavailable
from servicekit.events.lanes import Backoff
from servicekit.events.ledger import SequenceLedger
from servicekit.events.reports import REPORT_EVERY_S, build_report
from servicekit.ports.clock import Clock
from servicekit.ports.event_bus import OutgoingEvent, Subscription

log = structlog.get_logger()

PUBLISH_TIMEOUT_S = 10.0
START_WITHIN_S = 30.0
_WATCH_EVERY_S = 2.0
_RETRY_START_S = 0.5
_FIRST_TRY_S = 3.0
_SETTLE_S = 4.0
_LAST_REPORT_S = 2.0


class KafkaEventBus:
    """A connection to Kafka; see `ports.event_bus` for what its methods promise."""

    def __init__(
        self,
        address: KafkaAddress,
        *,
        identity: ServiceIdentity,
        clock: Clock,
        publish_timeout_s: float,
        backoff: Backoff,
        spool: Spool | None = None,
    ) -> None:
        self.ledger = SequenceLedger()
        self._spool = spool
        self._address = address
        self._identity = identity
        self._clock = clock
        self._sessions = SessionKeeper(address.servers)
        producer = identity.producer
        delivery = Delivery(
            self._sessions, self.ledger, producer=producer, spool=spool, spool_after_s=address.spool_after_s
        )
        self._publisher = KafkaPublisher(
            self._sessions, delivery, identity=identity, clock=clock, timeout_s=publish_timeout_s
        )
        self._drain: Drain | None = None
        if spool is not None:
            self._drain = Drain(spool, self._sessions, self.ledger, producer=producer, copies=delivery.copies)
        self._consumers = KafkaConsumers(address, send_dead_letter=self._publisher.bury, backoff=backoff, clock=clock)
        self._consuming = False
        self._consumers_stale = False
        self._topics_made = False
        self._lifecycle = asyncio.Lock()

    async def publish(self, event: OutgoingEvent) -> None:
        """Publish and wait until the event is acknowledged, or on disk where there is a spool."""
        await self._publisher.publish(event)

    def subscribe(self, subscription: Subscription) -> None:
        """Declare a subscription; consuming begins with `start_consuming`."""
        self._consumers.add(subscription)

    async def start_consuming(self) -> None:
        """Join the groups and begin to fetch; with a spool, as soon as Kafka is there.

        Raises:
            BackendUnavailable: Kafka cannot be reached, and there is no spool that lets the service go on without it.
        """
        async with self._lifecycle:
            waits = self._spool is not None and self._sessions.usable() is None
            try:
                if not waits:
                    await self._start_consumers()
            except BackendUnavailable:
                if self._spool is None:
                    raise
                waits = True
            if waits:
                log.warning("kafka.consumers_wait", servers=self._address.servers)
                self._consumers_stale = True
            self._consuming = True

    async def _start_consumers(self) -> None:
        """Start, and start again: a rebalance can refuse a member that comes at the wrong instant."""
        await self._make_topics()
        give_up_s = self._clock.monotonic_s() + START_WITHIN_S
        while True:
            try:
                return await self._consumers.start()
            except KafkaError as exc:
                await self._consumers.stop()
                if self._clock.monotonic_s() >= give_up_s:
                    raise self._unreachable(exc) from exc
                log.warning("kafka.start_repeated", error=repr(exc))
                await asyncio.sleep(_RETRY_START_S)

    async def stop_consuming(self) -> None:
        """Stop fetching, finish what is in hand, commit."""
        async with self._lifecycle:
            self._consuming = False
            await self._consumers.stop()

    async def ping(self) -> None:
        """Return if events can be published now: the spool takes them, or a broker answers."""
        if self._spool is not None and self._spool.ok:
            return
        session = self._sessions.current
        if session is None or session.broken.is_set() or not await session.answers():
            raise self._unreachable(None)

    async def check_consuming(self) -> None:
        """Return if no subscription was stopped by its dead letters, else raise NotReady."""
        self._consumers.check()

    async def report(self, *, final: bool = False) -> None:
        """Publish how far this producer's events are safe."""
        event = build_report(self._identity, self.ledger, now=self._clock.now(), final=final)
        if event is not None:
            await self.publish(event)

    async def connect(self, *, within_s: float) -> None:
        """Connect, trying again while Kafka is not up yet; with a spool, once: `keep_connected` goes on trying.

        Raises:
            BackendUnavailable: it was not up in time, and there is no spool.
        """
        if self._spool is not None:
            await self._connect_if_there()
            return
        give_up_s = self._clock.monotonic_s() + within_s
        while True:
            try:
                await self._sessions.open()
            except KafkaError as exc:
                if self._clock.monotonic_s() >= give_up_s:
                    raise self._unreachable(exc) from exc
                await asyncio.sleep(_RETRY_START_S)
            else:
                break
        await self._make_topics()

    async def _connect_if_there(self) -> None:
        try:
            async with asyncio.timeout(_FIRST_TRY_S):
                await self._sessions.open()
        except (KafkaError, TimeoutError) as exc:
            log.warning("kafka.away_at_start", servers=self._address.servers, error=repr(exc))
        else:
            await self._make_topics()

    async def _make_topics(self) -> None:
        self._topics_made = True
        letters = [(one.topic, one.group) for one in self._consumers.subscriptions if one.dead_letter]
        await create_missing_topics(self._address.servers, dead_letters=letters)

    async def finish(self) -> None:
        """Let everything that was published become safe, and tell for the last time how far events are."""
        await self.stop_consuming()
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(_SETTLE_S):
                while self.ledger.in_flight():  # noqa: ASYNC110  # the end of every send is no event of its own
                    await asyncio.sleep(0.01)
                if self._drain is not None:
                    await self._drain.finish()
        with contextlib.suppress(TimeoutError, BackendUnavailable):
            async with asyncio.timeout(_LAST_REPORT_S):
                await self.report(final=True)

    async def disconnect(self) -> None:
        """Let go of Kafka."""
        await self._sessions.close()

    async def keep_reporting(self) -> None:
        """Report every 10 s until cancelled."""
        while True:
            await asyncio.sleep(REPORT_EVERY_S)
            try:
                await self.report()
            except BackendUnavailable as exc:
                log.warning("kafka.report_failed", error=exc.message)

    async def keep_draining(self) -> None:
        """Take to Kafka what is spooled, until cancelled."""
        if self._drain is not None:
            await self._drain.run()

    async def keep_connected(self) -> None:
        """Follow a broker that was reborn, until cancelled."""
        away = False
        while True:
            await self._wait_until_watch()
            try:
                await self._look_after_connections()
            except (KafkaError, BackendUnavailable) as exc:
                if not away:  # else said before
                    log.warning("kafka.unreachable", servers=self._address.servers, error=repr(exc))
                away = True
            except Exception:
                log.exception("kafka.watch_failed")
            else:
                away = False

    async def _look_after_connections(self) -> None:
        if await self._sessions.check():
            self._consumers_stale = True
        if not self._topics_made:
            await self._make_topics()
        if self._consumers_stale or self._consumers.failed.is_set():
            await self._restart_consumers()

    async def _wait_until_watch(self) -> None:
        session = self._sessions.usable()
        if session is None:
            await asyncio.sleep(_RETRY_START_S)
            return
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(_WATCH_EVERY_S):
                await session.doubted.wait()

    async def _restart_consumers(self) -> None:
        async with self._lifecycle:
            if self._consuming:
                log.info("kafka.consumers_restarted", servers=self._address.servers)
                await self._consumers.stop()
                await self._start_consumers()
            self._consumers_stale = False

    def _unreachable(self, exc: Exception | None) -> BackendUnavailable:
        servers = ",".join(self._address.servers)
        why = f": {exc}" if exc else ""
        return BackendUnavailable(f"no Kafka broker answers at {servers}{why}", reason="KAFKA_UNREACHABLE")


@contextlib.asynccontextmanager
async def open_event_bus(
    url: str,
    *,
    identity: ServiceIdentity,
    clock: Clock,
    publish_timeout_s: float = PUBLISH_TIMEOUT_S,
    start_within_s: float = START_WITHIN_S,
    backoff: Backoff | None = None,
    spool_dir: Path | None = None,
) -> AsyncIterator[KafkaEventBus]:
    """Connect to the Kafka at `kafka://host:port[,…][?instance=NAME&session_s=6]` (`address.py` has all options).

    With a `spool_dir`, events go to disk there while Kafka is away or slow, and the bus opens without Kafka too.
    Services on the request path have one. What only turns events into others has none: there a publish fails, the
    offset of what was consumed stays uncommitted, and the event comes again.

    Raises:
        InvalidRequest: the URL says something unknown, or the spool cannot be opened.
        BackendUnavailable: no broker answers within `start_within_s`, and there is no spool.
    """
    quieten_aiokafka()
    address = parse_address(url)
    async with contextlib.AsyncExitStack() as stack:
        spool = None
        if spool_dir is not None:
            opened = open_spool(spool_dir, service=identity.name, max_bytes=address.max_spool_bytes)
            spool = await stack.enter_async_context(opened)
        bus = KafkaEventBus(
            address,
            identity=identity,
            clock=clock,
            publish_timeout_s=publish_timeout_s,
            backoff=backoff or Backoff(),
            spool=spool,
        )
        await bus.connect(within_s=start_within_s)
        stack.push_async_callback(bus.disconnect)
        await stack.enter_async_context(_running(bus.keep_draining))
        stack.push_async_callback(bus.finish)
        await stack.enter_async_context(_running(bus.keep_reporting, bus.keep_connected))
        yield bus


@contextlib.asynccontextmanager
async def _running(*works: Callable[[], Coroutine[Any, Any, None]]) -> AsyncIterator[None]:
    tasks = [asyncio.create_task(work()) for work in works]
    try:
        yield
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
