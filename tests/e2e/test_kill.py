"""kill -9 of each service in turn, under load: requests recover, and nothing that was promised is missing."""

import asyncio
import os
import signal
import time

import pytest

from binnacle_client.client import Binnacle, open_client
from binnacle_client.connection import SERVICES
from tests.e2e.conftest import RunningStack
from tests.e2e.load import Load, all_stored, until

_RECOVER_WITHIN_S = 10.0


async def _recovered(stack: RunningStack, binnacle: Binnacle, load: Load, service: str, old_pid: int) -> float:
    """Seconds until the service is back, serves, and answers come again."""
    began = time.monotonic()

    def replaced() -> bool:
        try:
            return stack.service_pid(service) != old_pid
        except LookupError:
            return False

    await until(replaced, within_s=_RECOVER_WITHIN_S, otherwise=lambda: f"{service} was not restarted")
    while await binnacle.health(service) != "serving":
        assert time.monotonic() - began < _RECOVER_WITHIN_S, f"{service} does not serve again"
        await asyncio.sleep(0.1)
    load.answers_since = 0
    await until(
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
        await until(lambda: len(load.completed) > 5, within_s=20, otherwise=lambda: load.last_failure)
        for service in SERVICES:
            pid = stack.service_pid(service)
            os.kill(pid, signal.SIGKILL)
            seconds[service] = await _recovered(stack, binnacle, load, service, pid)
        load.stop = True
    with capsys.disabled():
        told = ", ".join(f"{name} {value:.1f} s" for name, value in seconds.items())
        print(f"\nrecovered after kill -9: {told}; {len(load.completed)} answers completed")
    await all_stored(stack, load.completed)
