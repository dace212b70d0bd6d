"""The whole stack on the native Kafka: what was promised outlives kill -9 of broker, store and services."""

import asyncio
import os
import signal
from collections.abc import Iterator

import pytest

from binnacle_client.client import open_client
from servicekit.adapters.clickhouse.analytics_store import open_analytics_store
from services.local.native_install import obstacle
from tests.e2e.conftest import RunningStack, filled_stack
from tests.e2e.load import Load, all_stored, until

pytestmark = pytest.mark.servers

_BROKER = "kafka.Kafka"
_KILLED = ("services.analytics", _BROKER, "services.gateway", "services.local.clickhouse_front", "services.evaluator")
_RECOVER_WITHIN_S = 30.0
_LANDED_WITHIN_S = 60.0


@pytest.fixture(scope="module")
def durable_stack(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningStack]:
    """The stack on a native Kafka, with three small documents in it."""
    if reason := obstacle():
        pytest.skip(reason)
    yield from filled_stack(tmp_path_factory.mktemp("durable"), "--servers", "native")


async def test_answer_and_feedback_are_stored_once_and_the_ledger_is_whole(durable_stack: RunningStack) -> None:
    """One question and one thumb: one row each, and completeness misses nothing."""
    async with open_client(durable_stack.connection) as binnacle:
        answer = await binnacle.ask("When is bread baked?", timeout_s=20)
    feedback = durable_stack.binnacle_json("feedback", answer.request_id, "--up")[0]
    assert answer.outcome == "answered"
    await all_stored(durable_stack, {answer.request_id})
    url = durable_stack.connection.clickhouse_url.replace("http://", "clickhouse://") + "/binnacle"
    async with open_analytics_store(url) as store, asyncio.timeout(_LANDED_WITHIN_S):
        while not (rows := await store.query("SELECT feedback_id, request_id FROM feedback")):
            await asyncio.sleep(0.2)
    assert [(row["feedback_id"], row["request_id"]) for row in rows] == [(feedback["feedback_id"], answer.request_id)]


def test_topics_are_those_of_the_registry(durable_stack: RunningStack) -> None:
    """A broker of the stack has every topic as it is registered."""
    assert all(not one["differences"] for one in durable_stack.binnacle_json("topics"))


@pytest.mark.timeout(300)
async def test_kill_nine_of_broker_store_and_services_loses_nothing(durable_stack: RunningStack) -> None:
    """Each dies under load and comes back by itself; every answer whose `completed` was seen is stored once."""
    load = Load()
    async with open_client(durable_stack.connection) as binnacle, asyncio.TaskGroup() as tasks:
        for _ in range(2):
            tasks.create_task(load.run(binnacle))
        await until(lambda: len(load.completed) > 5, within_s=20, otherwise=lambda: load.last_failure)
        for name in _KILLED:
            await _kill_and_recover(durable_stack, load, name)
        load.stop = True
    await all_stored(durable_stack, load.completed)


async def _kill_and_recover(stack: RunningStack, load: Load, name: str) -> None:
    killed = stack.pid_of(name)
    os.kill(killed, signal.SIGKILL)

    def replaced() -> bool:
        try:
            return stack.pid_of(name) != killed
        except LookupError:
            return False

    await until(replaced, within_s=_RECOVER_WITHIN_S, otherwise=lambda: f"{name} was not restarted")
    load.answers_since = 0
    await until(
        lambda: load.answers_since >= 3,
        within_s=_RECOVER_WITHIN_S,
        otherwise=lambda: f"no answers after {name} was killed; last failure: {load.last_failure}",
    )
