"""An event removed from the middle of a topic's table, and a copy inserted into it: `binnacle complete` names both."""

import asyncio
import json
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from binnacle_client.client import open_client
from servicekit.adapters.clickhouse.analytics_store import open_analytics_store
from servicekit.events.topics import INTERACTION_COMPLETED, TOPICS
from tests.e2e.conftest import RunningStack, start_stack

_QUESTIONS = 2 * TOPICS[INTERACTION_COMPLETED].partitions + 1  # at least one partition has three
_SETTLED_WITHIN_S = 60
_AT_ONCE = "SETTINGS mutations_sync = 2"


@dataclass(frozen=True)
class _Place:
    """Where an event is: its producer's sequence in a partition, and the request it tells of."""

    request_id: str
    producer: str
    partition: int
    sequence: int


@pytest.fixture
def own_stack(tmp_path: Path) -> Iterator[RunningStack]:
    """A stack of its own: what is done to its tables is nobody else's."""
    yield from start_stack(tmp_path / "data")


async def _ask(stack: RunningStack) -> None:
    async with open_client(stack.connection) as binnacle:
        for number in range(_QUESTIONS):
            await binnacle.ask(f"What is rule {number} of the harbour?")


async def _execute(stack: RunningStack, *statements: str) -> None:
    async with open_analytics_store(_store_url(stack)) as store:
        for statement in statements:
            await store.execute(statement)


async def _places(stack: RunningStack) -> list[_Place]:
    """Of all interactions, in order."""
    async with open_analytics_store(_store_url(stack)) as store:
        rows = await store.query(
            "SELECT request_id, event_producer, kafka_partition, event_sequence FROM interactions "
            "ORDER BY event_producer, kafka_partition, event_sequence"
        )
    return [_Place(*row.values()) for row in rows]


def _store_url(stack: RunningStack) -> str:
    return stack.connection.clickhouse_url.replace("http://", "clickhouse://") + "/binnacle"


def _complete(stack: RunningStack) -> dict[str, Any]:
    done = stack.binnacle("complete", "--topic", INTERACTION_COMPLETED, "--hours", "1", "--json", check=False)
    (line,) = done.stdout.splitlines()
    told: dict[str, Any] = json.loads(line)
    assert done.returncode == (6 if told["verdict"] == "not whole" else 0), done.stderr
    return told


def _until(stack: RunningStack, condition: Callable[[dict[str, Any]], bool]) -> dict[str, Any]:
    deadline = time.monotonic() + _SETTLED_WITHIN_S
    while not condition(told := _complete(stack)):
        assert time.monotonic() < deadline, told
        time.sleep(0.5)
    return told


def _found(told: dict[str, Any], what: str) -> list[tuple[str, int, list[list[int]]]]:
    return [(one["producer"], one["partition"], one["ranges"]) for one in told["findings"] if one["what"] == what]


@pytest.mark.timeout(240)
def test_a_removed_event_and_an_inserted_copy_are_named_exactly(own_stack: RunningStack) -> None:
    """Producer, partition and sequence of each, in JSON and for people; everything else is as it was."""
    asyncio.run(_ask(own_stack))
    before = _until(own_stack, lambda told: told["accepted"] == told["stored"] == _QUESTIONS and not told["pending"])
    assert (before["verdict"], before["missing"], before["duplicates"]) == ("whole so far", 0, 0)

    places = asyncio.run(_places(own_stack))
    removed = next(b for a, b, c in zip(places, places[1:], places[2:], strict=False) if a.partition == c.partition)
    copied = next(place for place in places if place.partition != removed.partition)
    asyncio.run(
        _execute(
            own_stack,
            f"ALTER TABLE interactions_raw DELETE WHERE request_id = '{removed.request_id}' {_AT_ONCE}",
            f"INSERT INTO interactions_raw SELECT * FROM interactions_raw WHERE request_id = '{copied.request_id}'",
        )
    )

    told = _until(own_stack, lambda told: bool(told["missing"]))
    assert told["verdict"] == "not whole"
    assert _found(told, "missing") == [(removed.producer, removed.partition, [[removed.sequence] * 2])]
    assert _found(told, "duplicate") == [(copied.producer, copied.partition, [[copied.sequence] * 2])]
    assert (told["missing"], told["duplicates"], told["stored"]) == (1, 1, _QUESTIONS - 1)
    shown = own_stack.binnacle("complete", "--topic", INTERACTION_COMPLETED, check=False)
    assert shown.returncode == 6
    assert shown.stdout.startswith("not whole: ")
    rows = [line.split() for line in shown.stdout.splitlines()]
    for what, place in (("missing", removed), ("duplicate", copied)):
        expected = [what, "1", INTERACTION_COMPLETED, str(place.partition), str(place.sequence), place.producer]
        assert expected in rows, shown.stdout
