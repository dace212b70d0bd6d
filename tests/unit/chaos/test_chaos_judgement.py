"""The judgement of a fault run, its plan, and the watches of its proxies."""

import struct

import pytest

from tests.chaos.counting import Counts, Outcome
from tests.chaos.faults import Victim, plan
from tests.chaos.proxies import InsertWatch, ProduceWatch


def _outcome(*, acknowledged: int = 10, counts: Counts, lost: int = 0, in_flight: int = 2) -> Outcome:
    return Outcome(
        seed=1,
        kills=4,
        acknowledged=acknowledged,
        failed=0,
        counts=counts,
        in_flight_at_kills=in_flight,
        lost=lost,
        settled=True,
    )


def test_run_that_kept_its_promises_has_no_fault() -> None:
    """Two stored requests that nobody saw completed were in flight at a kill."""
    assert not _outcome(counts=Counts(12, 12, 12)).faults


@pytest.mark.parametrize(
    ("counts", "lost", "told"),
    [
        (Counts(9, 9, 9), 1, "1 acknowledged requests are not stored"),
        (Counts(11, 10, 10), 0, "stored 11, distinct 10 and rollup 10 differ"),
        (Counts(10, 10, 11), 0, "stored 10, distinct 10 and rollup 11 differ"),
        (Counts(13, 13, 13), 0, "3 unacknowledged, only 2 in flight at the kills"),
    ],
)
def test_what_is_lost_doubled_or_of_unknown_origin_is_named(counts: Counts, lost: int, told: str) -> None:
    """Each kind of fault fails the run by itself."""
    assert _outcome(counts=counts, lost=lost).faults == [told]


def test_plan_is_the_seeds_and_kills_every_victim_once() -> None:
    """The same seed draws the same faults; orders differ from seed to seed."""
    assert plan(7) == plan(7)
    assert all({fault.victim for fault in plan(seed)} == set(Victim) for seed in range(20))
    assert len({tuple(fault.victim for fault in plan(seed)) for seed in range(20)}) > 5


def test_success_of_an_insert_of_interactions_is_awaited_once() -> None:
    """Neither the success of a query nor the refusal of an insert is."""
    watch = InsertWatch()
    watch.request(b"POST /?query=SELECT+1 HTTP/1.1\r\n")
    assert not watch.is_awaited(b"HTTP/1.1 200 OK\r\n")
    watch.request(b"POST /?query=INSERT+INTO+interactions_raw HTTP/1.1\r\n")
    watch.request(b"rows")
    assert not watch.is_awaited(b"HTTP/1.1 500 no\r\n")
    assert watch.is_awaited(b"HTTP/1.1 200 OK\r\n")
    assert not watch.is_awaited(b"HTTP/1.1 200 OK\r\n")


def test_acknowledgement_is_found_whatever_the_chunks() -> None:
    """Frames are cut by their lengths, not by how they arrive."""
    watch = ProduceWatch()
    for chunk in _bytewise(_frame(struct.pack(">hhi", 0, 7, 42) + b"binnacle.interaction.completed.v1")):
        watch.request(chunk)
    watch.request(_frame(struct.pack(">hhi", 3, 7, 43) + b"binnacle.interaction.completed.v1"))
    assert not watch.is_awaited(_frame(struct.pack(">i", 43)))
    assert [watch.is_awaited(chunk) for chunk in _bytewise(_frame(struct.pack(">i", 42)))] == [False] * 7 + [True]


def _frame(body: bytes) -> bytes:
    return struct.pack(">i", len(body)) + body


def _bytewise(frame: bytes) -> list[bytes]:
    return [frame[at : at + 1] for at in range(len(frame))]
