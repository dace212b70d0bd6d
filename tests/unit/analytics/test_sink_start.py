"""What the sink does before it asks Kafka for its topics."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress

import pytest

from servicekit.testing.clocks import FakeClock
from services.analytics.sink import Sink
from services.analytics.sink_session import SinkSettings
from tests.unit.analytics.analytics_fakes import RecordingStore


async def test_topics_are_created_before_a_consumer_asks_for_them(monkeypatch: pytest.MonkeyPatch) -> None:
    """Kafka would create an unknown topic by itself, with one partition and without our retention."""
    done: list[str] = []
    connecting = asyncio.Event()

    async def create_topics() -> None:
        done.append("topics")

    @asynccontextmanager
    async def consumer(_sink: Sink) -> AsyncIterator[None]:
        done.append("consumer")
        connecting.set()
        await asyncio.Event().wait()
        yield

    async def read_tables(_store: object) -> dict[str, object]:
        return {}

    monkeypatch.setattr(Sink, "_consumer", consumer)
    monkeypatch.setattr("services.analytics.sink.read_tables", read_tables)
    sink = Sink(
        RecordingStore(),
        servers=["127.0.0.1:1"],
        instance=None,
        create_topics=create_topics,
        clock=FakeClock(),
        settings=SinkSettings(),
    )
    running = asyncio.create_task(sink.run())
    await connecting.wait()
    running.cancel()
    with suppress(asyncio.CancelledError):
        await running
    assert done == ["topics", "consumer"]
