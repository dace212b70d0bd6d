"""Runs subscriptions as FastStream batch subscribers, each an aiokafka consumer in its group.

Part of `KafkaEventBus`. FastStream owns the fetch loop; decoding, acknowledgement and dead letters are ours
(`intake.py`), because its defaults acknowledge before processing, decode headers as UTF-8 and bodies as JSON.
"""

import asyncio
import logging
from collections.abc import Awaitable, Callable, Sequence
from typing import Any

import structlog
from aiokafka import AIOKafkaConsumer
from faststream import AckPolicy
from faststream.kafka import KafkaBroker
from faststream.message import StreamMessage

from servicekit.adapters.kafka.address import KafkaAddress
from servicekit.adapters.kafka.intake import Fetched, Intake
from servicekit.errors import NotReady
from servicekit.events.dead_letter_cap import DeadLetterCap
from servicekit.events.dead_letters import DeadLetter
from servicekit.events.lanes import Backoff
from servicekit.events.topics import consumer_group, replay_topic
from servicekit.ports.clock import Clock
from servicekit.ports.event_bus import Subscription

log = structlog.get_logger()

# An empty fetch waits this long at the broker, and FastStream as long again as its poll: together the delay
# that an event meets on an idle topic. librdkafka's mock cluster always waits the whole time.
_FETCH_WAIT_MS = 100
_POLL_MS = 20
_HEARTBEATS_A_SESSION = 3
# A member learns of a rebalance with its next heartbeat, and the others wait for it: not long, however long a session.
_MAX_HEARTBEAT_S = 2.0
# Partitions that were added, or a topic that came late, are noticed after this long; aiokafka's own is 5 minutes.
_METADATA_AGE_MS = 15_000
_MS = 1000
# A handler may wait long for a store that is away; the heartbeat tells that the process lives.
_MAX_POLL_INTERVAL_MS = 3_600_000
_REBALANCE_MS = 60_000
_GRACE_S = 30.0
_STOP_S = _GRACE_S + 10.0


class KafkaConsumers:
    """The consuming half of the bus; started, stopped and, after the brokers moved, started anew."""

    def __init__(
        self,
        address: KafkaAddress,
        *,
        send_dead_letter: Callable[[DeadLetter], Awaitable[None]],
        backoff: Backoff,
        clock: Clock,
    ) -> None:
        self._address = address
        self._send_dead_letter = send_dead_letter
        self._backoff = backoff
        self._clock = clock
        # They outlive a restart of the consumers, so that what dead letters stopped stays so for this process.
        self._caps: dict[tuple[str, str], DeadLetterCap] = {}
        self._subscriptions: list[Subscription] = []
        # A FastStream broker for each subscription, because one starts its subscribers one after the other.
        self._running: list[tuple[KafkaBroker, Intake]] = []
        # Set when a consumer says that it cannot go on; cleared by `start`.
        self.failed = asyncio.Event()

    @property
    def subscriptions(self) -> Sequence[Subscription]:
        """What was declared."""
        return self._subscriptions

    def add(self, subscription: Subscription) -> None:
        """Declare a subscription for the next start."""
        self._subscriptions.append(subscription)
        self._caps[subscription.topic, subscription.group] = DeadLetterCap(subscription.dead_letter_limits)

    def check(self) -> None:
        """Return if dead letters stopped none.

        Raises:
            NotReady: names those that they did, and why.
        """
        stopped = [f"{topic} in {group}: {cap.trip}" for (topic, group), cap in self._caps.items() if cap.trip]
        if stopped:
            raise NotReady(
                f"dead letters stopped {'; '.join(stopped)}; see `binnacle dlq list`", reason="DEAD_LETTER_CAP"
            )

    async def start(self) -> None:
        """Join all groups at once and begin to fetch; joining may take as long as a session.

        Raises:
            KafkaError: no server answers, or a group refuses.
        """
        self.failed.clear()
        for subscription in self._subscriptions:
            broker = KafkaBroker(
                list(self._address.servers),
                consumer_only=True,
                apply_types=False,
                ack_policy=AckPolicy.MANUAL,
                graceful_timeout=_GRACE_S,
                metadata_max_age_ms=_METADATA_AGE_MS,
                logger=_OnlyErrors(self.failed.set),
            )
            self._running.append((broker, self._attach(broker, subscription)))
        started = await asyncio.gather(*(one.start() for one, _ in self._running), return_exceptions=True)
        for outcome in started:
            if isinstance(outcome, BaseException):
                raise outcome

    async def stop(self) -> None:
        """Stop fetching, finish what is in hand, commit, leave the groups."""
        running, self._running = self._running, []
        for _, intake in running:
            intake.stop()
        await asyncio.gather(*(self._stop(broker) for broker, _ in running))

    @staticmethod
    async def _stop(broker: KafkaBroker) -> None:
        try:
            async with asyncio.timeout(_STOP_S):
                await broker.stop()
        except Exception as exc:  # noqa: BLE001  # a broker that is gone must not keep the service from ending
            log.warning("kafka.consumers_left_behind", error=repr(exc))

    def _attach(self, broker: KafkaBroker, subscription: Subscription) -> Intake:
        def consumer() -> AIOKafkaConsumer | None:
            return subscriber.consumer

        intake = Intake(
            subscription,
            consumer=consumer,
            send_dead_letter=self._send_dead_letter,
            backoff=self._backoff,
            cap=self._caps[subscription.topic, subscription.group],
            clock=self._clock,
        )
        instance = self._address.instance
        replays = (replay_topic(subscription.topic, subscription.group),) if subscription.dead_letter else ()
        subscriber = broker.subscriber(
            subscription.topic,
            *replays,
            batch=True,
            group_id=consumer_group(subscription.topic, subscription.group),
            group_instance_id=instance,
            auto_offset_reset="earliest" if subscription.from_beginning else "latest",
            max_records=subscription.max_batch,
            batch_timeout_ms=_POLL_MS,
            fetch_max_wait_ms=_FETCH_WAIT_MS,
            session_timeout_ms=int(self._address.session_s * _MS),
            heartbeat_interval_ms=int(min(self._address.session_s / _HEARTBEATS_A_SESSION, _MAX_HEARTBEAT_S) * _MS),
            max_poll_interval_ms=_MAX_POLL_INTERVAL_MS,
            rebalance_timeout_ms=_REBALANCE_MS,
            listener=intake,
            parser=_parse,
            decoder=_decode,
            ack_policy=AckPolicy.MANUAL,
            no_reply=True,
        )
        subscriber(intake.handle)
        return intake


async def _parse(batch: tuple[Fetched, ...]) -> StreamMessage[tuple[Fetched, ...]]:
    """The batch untouched: FastStream's parser fails on a header that is not UTF-8."""
    return StreamMessage(raw_message=batch, body=b"", correlation_id="batch")


async def _decode(message: StreamMessage[tuple[Fetched, ...]]) -> tuple[Fetched, ...]:
    """The records themselves: FastStream's decoder takes the body `123` for a number."""
    return message.raw_message


class _OnlyErrors:
    """FastStream's log without its notes on every batch and every start.

    Its fetch loop reports an error and goes on with the same consumer; but aiokafka's coordinator does not come
    back from some of them, so that only a new consumer helps: `on_error` asks for one.
    """

    def __init__(self, on_error: Callable[[], None]) -> None:
        self._on_error = on_error

    def log(
        self,
        level: int,
        message: object,
        *,
        exc_info: Any = None,
        extra: Any = None,
    ) -> None:
        """Pass on what is an error."""
        del extra  # topic and group stand in our own lines
        if level >= logging.ERROR:
            log.error("kafka.consumer_failed", message=str(message), error=repr(exc_info))
            self._on_error()
