"""One timer bounds all waits of a stream, and takes back no cancellation but its own."""

import asyncio

import pytest

from services.generator.stopwatch import Stopwatch


async def _never() -> None:
    await asyncio.Event().wait()


async def _at_once() -> int:
    return 1


async def test_wait_that_is_under_way_ends() -> None:
    """The time runs out in a wait, and the task lives on uncancelled."""
    with pytest.raises(TimeoutError):
        await Stopwatch(0.01).wait(_never)
    task = asyncio.current_task()
    assert task is not None
    assert task.cancelling() == 0
    assert await _at_once() == 1


async def test_nothing_is_cancelled_between_waits() -> None:
    """Time that runs out while nobody waits is told at the next wait."""
    watch = Stopwatch(0.01)
    assert await watch.wait(_at_once) == 1
    await asyncio.sleep(0.03)
    with pytest.raises(TimeoutError):
        await watch.wait(_at_once)


@pytest.mark.parametrize("within_s", [0.0, -1.0])
async def test_no_time_is_no_wait(within_s: float) -> None:
    """Where no time is left nothing is begun."""
    with pytest.raises(TimeoutError):
        await Stopwatch(within_s).wait(_at_once)


async def test_a_callers_cancellation_stays_one() -> None:
    """A task that is cancelled from outside ends cancelled, whatever time is left."""
    watch = Stopwatch(60)
    task = asyncio.ensure_future(watch.wait(_never))
    await asyncio.sleep(0)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    watch.stop()


async def test_both_at_once_is_a_cancellation() -> None:
    """Cancelled from outside in the moment in which the time runs out, it is the caller's cancellation that counts."""
    watch = Stopwatch(60)
    task = asyncio.ensure_future(watch.wait(_never))
    await asyncio.sleep(0)
    task.cancel()
    watch._expire()  # its timer, at this very moment
    with pytest.raises(asyncio.CancelledError):
        await task


async def test_stopped_it_runs_out_no_more() -> None:
    """After `stop` there is no timer, and an endless one never had any."""
    watch = Stopwatch(0.01)
    watch.stop()
    await asyncio.sleep(0.03)
    assert await watch.wait(_at_once) == 1
    assert await Stopwatch(float("inf")).wait(_at_once) == 1
