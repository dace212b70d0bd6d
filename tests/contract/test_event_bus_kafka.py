"""The Kafka event bus keeps the contract of its port, against the embedded broker."""

from collections.abc import AsyncIterator
from contextlib import AsyncExitStack

import pytest

from servicekit.testing.conformance.event_bus import EventBusConformance
from services.local.broker import run_broker
from tests.kafka_harness import KafkaHarness


@pytest.fixture
async def harness() -> AsyncIterator[KafkaHarness]:
    """A broker of its own for each test, and buses connected to it."""
    async with run_broker() as broker, AsyncExitStack() as stack:
        yield KafkaHarness(broker.bootstrap, stack)


class TestKafkaEventBus(EventBusConformance):
    """All of the port's contract."""
