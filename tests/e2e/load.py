"""Callers that ask until they are stopped, and the proof that all they were promised is stored.

Used by the tests that kill processes under load.
"""

import asyncio
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field

import pytest

from binnacle_client.client import Binnacle, open_client
from servicekit.adapters.clickhouse.analytics_store import open_analytics_store
from servicekit.errors import BackendUnavailable, BinnacleError
from tests.e2e.conftest import RunningStack

_LANDED_WITHIN_S = 60.0
_BACK_OFF_S = 0.1  # who is refused waits a moment: refusals are quick, and asked for without a pause take the machine
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
                await asyncio.sleep(_BACK_OFF_S)
            else:
                self.completed.add(answer.request_id)
                if answer.outcome == "answered":
                    self.answers_since += 1
                else:  # an honest refusal is stored like any answer, and is no recovery
                    self.last_failure = f"{answer.outcome}: {', '.join(answer.degradations)}"
                    await asyncio.sleep(_BACK_OFF_S)
            await asyncio.sleep(0.02)


async def until(condition: Callable[[], bool], *, within_s: float, otherwise: Callable[[], str]) -> float:
    """Seconds until it holds; fails the test when that takes too long."""
    began = time.monotonic()
    while not condition():
        if time.monotonic() - began > within_s:
            pytest.fail(otherwise())
        await asyncio.sleep(0.05)
    return time.monotonic() - began


async def all_stored(stack: RunningStack, completed: set[str]) -> None:
    """Wait until each of them is in its table, exactly once, and nothing is missing of what was accepted."""
    url = stack.connection.clickhouse_url.replace("http://", "clickhouse://") + "/binnacle"
    async with open_analytics_store(url) as store:
        deadline = time.monotonic() + _LANDED_WITHIN_S
        missing = completed
        while missing and time.monotonic() < deadline:
            with suppress(BackendUnavailable):  # the store itself may have been killed a moment ago
                rows = await store.query("SELECT request_id, count() AS copies FROM interactions GROUP BY request_id")
                copies = {row["request_id"]: row["copies"] for row in rows}
                missing = completed - copies.keys()
            await asyncio.sleep(0.3)
    assert not missing
    assert {copies[request_id] for request_id in completed} == {1}
    async with open_client(stack.connection) as binnacle:
        deadline = time.monotonic() + _LANDED_WITHIN_S
        while (ledger := await binnacle.completeness()).pending and time.monotonic() < deadline:
            await asyncio.sleep(0.5)
    assert (ledger.missing, ledger.pending, ledger.evicted) == (0, 0, 0)
