"""kill -9 of each service in turn, under load: requests recover, and nothing that was promised is missing."""

import asyncio
import os
import signal
import time
from collections.abc import Callable
from dataclasses import dataclass, field

import pytest

from binnacle_client.client import Binnacle, open_client
from binnacle_client.connection import SERVICES
from servicekit.adapters.clickhouse.analytics_store import open_analytics_store
from servicekit.errors import BinnacleError
from tests.e2e.conftest import RunningStack

_RECOVER_WITHIN_S = 10.0
_LANDED_WITHIN_S = 60.0
_QUESTIONS = ("When is bread baked?", "How much does mooring cost?", "What corrects for soft iron?")


@dataclass
class Load:
    """What the callers saw."""

    completed: set[str] = field(default_factory=set)
    last_failure: str = ""
    answers_since: int = 0
    stop: bool = False

    async def run(self, binnacle: Binnacle) -> None:
        """Ask until stopped."""
        number = 0
        while not self.stop:
            number += 1
            try:
                answer = await binnacle.ask(_QUESTIONS[number % len(_QUESTIONS)], timeout_s=4)
            except BinnacleError as exc:
                self.last_failure = f"{exc.reason}: {exc.message}"
                await asyncio.sleep(0.05)
            else:
                self.completed.add(answer.request_id)
                if answer.outcome == "answered":
                    self.answers_since += 1
                else:  # an honest refusal is stored like any answer, and is no recovery
                    self.last_failure = f"{answer.outcome}: {', '.join(answer.degradations)}"
            await asyncio.sleep(0.02)


async def _until(condition: Callable[[], bool], *, within_s: float, otherwise: Callable[[], str]) -> float:
    began = time.monotonic()
    while not condition():
        if time.monotonic() - began > within_s:
            pytest.fail(otherwise())
        await asyncio.sleep(0.05)
    return time.monotonic() - began


async def _recovered(stack: RunningStack, binnacle: Binnacle, load: Load, service: str, old_pid: int) -> float:
    """Seconds until the service is back, serves, and answers come again."""
    began = time.monotonic()

    def replaced() -> bool:
        try:
            return stack.service_pid(service) != old_pid
        except LookupError:
            return False

    await _until(replaced, within_s=_RECOVER_WITHIN_S, otherwise=lambda: f"{service} was not restarted")
    while await binnacle.health(service) != "serving":
        assert time.monotonic() - began < _RECOVER_WITHIN_S, f"{service} does not serve again"
        await asyncio.sleep(0.1)
    load.answers_since = 0
    await _until(
        lambda: load.answers_since >= 3,
        within_s=_RECOVER_WITHIN_S - (time.monotonic() - began),
        otherwise=lambda: f"no answers after {service} was killed; last failure: {load.last_failure}",
    )
    return time.monotonic() - began


@pytest.mark.timeout(240)
async def test_kill_of_each_service_loses_nothing_promised(stack: RunningStack, capsys: pytest.CaptureFixture) -> None:
    """Each service dies once under load; every answer whose `completed` was seen is stored, exactly once."""
    load = Load()
    seconds = {}
    async with open_client(stack.connection) as binnacle, asyncio.TaskGroup() as tasks:
        for _ in range(2):
            tasks.create_task(load.run(binnacle))
        await _until(lambda: len(load.completed) > 5, within_s=20, otherwise=lambda: load.last_failure)
        for service in SERVICES:
            pid = stack.service_pid(service)
            os.kill(pid, signal.SIGKILL)
            seconds[service] = await _recovered(stack, binnacle, load, service, pid)
        load.stop = True
    with capsys.disabled():
        told = ", ".join(f"{name} {value:.1f} s" for name, value in seconds.items())
        print(f"\nrecovered after kill -9: {told}; {len(load.completed)} answers completed")
    await _all_stored(stack, load.completed)


async def _all_stored(stack: RunningStack, completed: set[str]) -> None:
    url = stack.connection.clickhouse_url.replace("http://", "clickhouse://") + "/binnacle"
    async with open_analytics_store(url) as store:
        deadline = time.monotonic() + _LANDED_WITHIN_S
        missing = completed
        while missing and time.monotonic() < deadline:
            rows = await store.query("SELECT request_id, count() AS copies FROM interactions GROUP BY request_id")
            copies = {row["request_id"]: row["copies"] for row in rows}
            missing = completed - copies.keys()
            await asyncio.sleep(0.3)
    assert not missing
    assert {copies[request_id] for request_id in completed} == {1}
    async with open_client(stack.connection) as binnacle:
        deadline = time.monotonic() + _LANDED_WITHIN_S
        while (ledger := await binnacle.completeness()).missing and time.monotonic() < deadline:
            await asyncio.sleep(0.5)  # what is on its way to the tables counts as missing
    assert (ledger.missing, ledger.evicted) == (0, 0)
