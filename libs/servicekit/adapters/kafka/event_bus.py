"""The event bus on Kafka: publishing with acknowledgements, consuming in groups, and staying connected.

Opened by `servicekit.adapters.registry` for `kafka://`; composes publisher, consumers and the watch over both.
"""

import asyncio
import contextlib
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import structlog
from aiokafka.errors import KafkaError

from servicekit.adapters.kafka.address import KafkaAddress, parse_address
from servicekit.adapters.kafka.consumers import KafkaConsumers
from servicekit.adapters.kafka.publisher import KafkaPublisher
from servicekit.adapters.kafka.quiet import quieten_aiokafka
from servicekit.adapters.kafka.session import SessionKeeper
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
_SETTLE_S = 5.0
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
    ) -> None:
        self.ledger = SequenceLedger()
        self._address = address
        self._identity = identity
        self._clock = clock
        self._sessions = SessionKeeper(address.servers)
        self._publisher = KafkaPublisher(self._sessions, self.ledger, identity=identity, timeout_s=publish_timeout_s)
        self._consumers = KafkaConsumers(address, send_dead_letter=self._publisher.bury, backoff=backoff, clock=clock)
        self._consuming = False
        self._consumers_stale = False
        self._lifecycle = asyncio.Lock()

    async def publish(self, event: OutgoingEvent) -> None:
        """Publish and wait for the acknowledgement."""
        await self._publisher.publish(event)

    def subscribe(self, subscription: Subscription) -> None:
        """Declare a subscription; consuming begins with `start_consuming`."""
        self._consumers.add(subscription)

    async def start_consuming(self) -> None:
        """Join the groups and begin to fetch.

        Raises:
            BackendUnavailable: Kafka cannot be reached.
        """
        letters = [(one.topic, one.group) for one in self._consumers.subscriptions if one.dead_letter]
        await create_missing_topics(self._address.servers, dead_letters=letters)
        async with self._lifecycle:
            await self._start_consumers()
            self._consuming = True

    async def _start_consumers(self) -> None:
        """Start, and start again: a rebalance can refuse a member that comes at the wrong instant."""
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
        """Return if a broker answers now."""
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
        """Connect, trying again while Kafka is not up yet.

        Raises:
            BackendUnavailable: it was not up in time.
        """
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
        await create_missing_topics(self._address.servers)

    async def close(self) -> None:
        """Finish, tell for the last time how far events are safe, disconnect."""
        await self.stop_consuming()
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(_SETTLE_S):
                while self.ledger.in_flight():  # noqa: ASYNC110  # the end of every send is no event of its own
                    await asyncio.sleep(0.01)
        with contextlib.suppress(TimeoutError, BackendUnavailable):
            async with asyncio.timeout(_LAST_REPORT_S):
                await self.report(final=True)
        await self._sessions.close()

    async def keep_reporting(self) -> None:
        """Report every 10 s until cancelled."""
        while True:
            await asyncio.sleep(REPORT_EVERY_S)
            try:
                await self.report()
            except BackendUnavailable as exc:
                log.warning("kafka.report_failed", error=exc.message)

    async def keep_connected(self) -> None:
        """Follow a broker that was reborn, until cancelled."""
        while True:
            await self._wait_until_watch()
            try:
                if await self._sessions.check():
                    self._consumers_stale = True
                if self._consumers_stale or self._consumers.failed.is_set():
                    await self._restart_consumers()
            except (KafkaError, BackendUnavailable) as exc:
                log.warning("kafka.unreachable", servers=self._address.servers, error=repr(exc))
            except Exception:
                log.exception("kafka.watch_failed")

    async def _wait_until_watch(self) -> None:
        session = self._sessions.current
        try:
            async with asyncio.timeout(_WATCH_EVERY_S):
                if session is None:
                    await asyncio.sleep(_RETRY_START_S)
                else:
                    await session.broken.wait()
        except TimeoutError:
            return

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


@asynccontextmanager
async def open_event_bus(
    url: str,
    *,
    identity: ServiceIdentity,
    clock: Clock,
    publish_timeout_s: float = PUBLISH_TIMEOUT_S,
    start_within_s: float = START_WITHIN_S,
    backoff: Backoff | None = None,
) -> AsyncIterator[KafkaEventBus]:
    """Connect to the Kafka at `kafka://host:port[,…][?instance=NAME&session_s=6]`.

    Raises:
        InvalidRequest: the URL says something unknown.
        BackendUnavailable: no broker answers within `start_within_s`.
    """
    quieten_aiokafka()
    bus = KafkaEventBus(
        parse_address(url),
        identity=identity,
        clock=clock,
        publish_timeout_s=publish_timeout_s,
        backoff=backoff or Backoff(),
    )
    await bus.connect(within_s=start_within_s)
    tasks = [asyncio.create_task(bus.keep_reporting()), asyncio.create_task(bus.keep_connected())]
    try:
        yield bus
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        await bus.close()
