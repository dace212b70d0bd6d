"""Consumers read the embedded broker; what it cannot do it says."""

from collections.abc import AsyncIterator
from datetime import UTC, datetime

import pytest

from binnacle.events.v1.feedback_recorded_pb2 import FeedbackRecorded
from binnacle_client.events import Limits, open_events
from servicekit.errors import BackendUnavailable, NotReady
from services.local.broker import run_broker
from tests.consumer_suite import ConsumerSuite, send


@pytest.fixture
async def kafka() -> AsyncIterator[str]:
    """A broker of its own for each test."""
    async with run_broker() as broker:
        yield broker.bootstrap


class TestConsumerOnEmbeddedBroker(ConsumerSuite):
    """All of the suite. This broker takes a member that left for one that may come back, until its session is over."""

    client_settings = {"session_timeout_ms": 1500, "heartbeat_interval_ms": 300}  # noqa: RUF012  # declared by the suite


@pytest.mark.parametrize("group", [None, "since"])
async def test_a_time_is_refused_with_the_remedy(kafka: str, group: str | None) -> None:
    """The embedded broker cannot look up times: the reader says so instead of beginning at the end."""
    await send(kafka, ["e1"])
    with pytest.raises(NotReady, match="real Kafka"):
        async with open_events(
            FeedbackRecorded, servers=kafka, group=group, start=datetime(2025, 6, 1, tzinfo=UTC)
        ) as events:
            await anext(events)


async def test_a_broker_that_is_gone_is_told() -> None:
    """A stream whose broker has died ends with an error instead of waiting for ever; it closes in time."""
    broker = run_broker()
    addresses = await broker.__aenter__()
    limits = Limits(unavailable_after_s=0.5)
    async with open_events(FeedbackRecorded, servers=addresses.bootstrap, limits=limits) as events:
        await broker.__aexit__(None, None, None)
        with pytest.raises(BackendUnavailable, match="no Kafka broker has answered"):
            await anext(events)
