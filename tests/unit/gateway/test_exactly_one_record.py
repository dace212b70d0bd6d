"""Whatever happens to an accepted request, exactly one InteractionCompleted is published."""

import asyncio
import contextlib
from collections.abc import Callable

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from servicekit.errors import (
    BackendTimeout,
    BackendUnavailable,
    BinnacleError,
    InvalidRequest,
    Overloaded,
)
from services.gateway.answer import Accepted, Completed
from services.gateway.question import Channel, Question
from tests.unit.gateway.gateway_fakes import ASKER, SECRET, FakeRetriever, Gateway, budget

PLACES = ("check_input", "search_chunks", "check_retrieved", "generate", "token", "check_output", "publish", "emit")
FAULTS: dict[str, Callable[[], BaseException]] = {
    "unavailable": lambda: BackendUnavailable("away"),
    "timeout": lambda: BackendTimeout("slow"),
    "invalid": lambda: InvalidRequest("no", field="model"),
    "overloaded": lambda: Overloaded("full"),
    "bug": lambda: RuntimeError("a bug"),
}


class _Fault:
    """Raises at the n-th visit of a place."""

    def __init__(self, place: str, occurrence: int, kind: str) -> None:
        self._place = place
        self._left = occurrence
        self._kind = kind

    async def __call__(self, place: str) -> None:
        await asyncio.sleep(0)
        if place != self._place:
            return
        self._left -= 1
        if self._left:
            return
        if self._kind == "hang":
            await asyncio.Event().wait()
        fault = FAULTS[self._kind]()
        raise fault


def _gateway(fault: _Fault, *, fail_open: bool = False) -> Gateway:
    gateway = Gateway(retriever=FakeRetriever(texts=("One.", f"Two {SECRET}.", "BLOCK.")), fail_open=fail_open)
    gateway.hook_all(fault)
    keep = gateway.emit

    async def emit(event: object) -> None:
        await keep(event)  # type: ignore[arg-type]  # the events of the fake
        if not isinstance(event, Completed):
            await fault("emit")

    gateway.emit = emit  # type: ignore[method-assign]  # a dial of the fake
    return gateway


def _check(gateway: Gateway, *, acknowledged: bool) -> None:
    accepted = sum(isinstance(event, Accepted) for event in gateway.events)
    records = gateway.bus.interactions()
    assert len(records) == (accepted if acknowledged else 0)
    completed = [event for event in gateway.events if isinstance(event, Completed)]
    assert len(completed) <= 1
    if completed:
        assert completed[0].answer.request_id == records[0].request_id
        assert gateway.events[-1] is completed[0]
    for record in records:
        assert record.outcome
        assert SECRET not in str(record)
        assert record.HasField("complete_time")


@settings(max_examples=150, deadline=None)
@given(
    place=st.sampled_from(PLACES),
    occurrence=st.integers(1, 4),
    kind=st.sampled_from([*FAULTS, "hang"]),
    fail_open=st.booleans(),
    text=st.sampled_from(["What?", f"Who is {SECRET}?", "BLOCK", "FLAG"]),
)
def test_a_fault_anywhere_leaves_one_record(place: str, occurrence: int, kind: str, fail_open: bool, text: str) -> None:
    """A failure or a hang at any step, at any visit, ends in one record, and in at most one Completed."""

    async def run() -> None:
        gateway = _gateway(_Fault(place, occurrence, kind), fail_open=fail_open)
        gateway.publishing._ack_timeout_s = 0.05
        question = Question(text, channel=Channel.GRPC_STREAM)
        with contextlib.suppress(BinnacleError, RuntimeError):
            async with asyncio.timeout(2):
                await gateway.answering.answer(
                    question, asker=ASKER, budget=budget(0.1 if kind == "hang" else 5), emit=gateway.emit
                )
        await gateway.publishing.drain()
        reached = place == "publish" and occurrence == 1
        _check(gateway, acknowledged=not reached)
        if reached:
            assert not any(isinstance(event, Completed) for event in gateway.events)

    asyncio.run(run())


@pytest.mark.parametrize("expired", [False, True])
async def test_cancellation_at_every_await_leaves_one_record(expired: bool) -> None:
    """Cancelled after any number of turns of the loop, an accepted request is recorded once, as what it was."""
    finished = False
    turns = 0
    outcomes = set()
    while not finished:
        turns += 1
        gateway = Gateway()
        remaining = budget(30)
        task = asyncio.create_task(
            gateway.answering.answer(
                Question("What?", idempotency_key="k", fingerprint=b"f"),
                asker=ASKER,
                budget=remaining,
                emit=gateway.emit,
            )
        )
        for _ in range(turns):
            await asyncio.sleep(0)
        if expired:
            remaining._ends_s = 0
        finished = task.done()
        task.cancel()
        with contextlib.suppress(asyncio.CancelledError, BinnacleError):
            await task
        await gateway.publishing.drain()
        _check(gateway, acknowledged=True)
        outcomes |= {record.outcome for record in gateway.bus.interactions()}
    assert turns > 15
    assert outcomes >= ({1, 6} if expired else {1, 5})


async def test_cancelled_request_frees_its_idempotency_key() -> None:
    """After a cancellation a repeat under the key is answered anew."""
    gateway = Gateway()
    reached = asyncio.Event()

    async def hook(place: str) -> None:
        if place == "generate" and not reached.is_set():
            reached.set()
            await asyncio.Event().wait()

    gateway.generator.hook = hook
    question = Question("What?", idempotency_key="k", fingerprint=b"f")
    first = asyncio.create_task(gateway.answering.answer(question, asker=ASKER, budget=budget()))
    await reached.wait()
    first.cancel()
    with pytest.raises(asyncio.CancelledError):
        await first
    await gateway.publishing.drain()
    answer = await gateway.answering.answer(question, asker=ASKER, budget=budget())
    assert not answer.replayed


async def test_publication_outlives_its_cancelled_request() -> None:
    """A request cancelled while the bus is slow is still recorded, and drain waits for it."""
    gateway = Gateway()
    publishing, go = asyncio.Event(), asyncio.Event()

    async def hook(place: str) -> None:
        publishing.set()
        await go.wait()

    gateway.bus.hook = hook
    task = asyncio.create_task(gateway.answering.answer(Question("What?"), asker=ASKER, budget=budget()))
    await publishing.wait()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    draining = asyncio.create_task(gateway.publishing.drain())
    await asyncio.sleep(0)
    assert not draining.done()
    go.set()
    await draining
    assert len(gateway.bus.interactions()) == 1


@pytest.mark.parametrize("kind", ["unavailable", "bug"])
async def test_failed_publication_frees_the_idempotency_key(kind: str) -> None:
    """However the bus fails, with an error of ours or a bug, a repeat under the key is answered anew."""
    gateway = Gateway()
    gateway.bus.hook = _Fault("publish", 1, kind)
    question = Question("What?", idempotency_key="k", fingerprint=b"f")
    with pytest.raises((BackendUnavailable, RuntimeError)):
        await gateway.answering.answer(question, asker=ASKER, budget=budget())
    await gateway.publishing.drain()
    answer = await gateway.answering.answer(question, asker=ASKER, budget=budget())
    assert not answer.replayed
