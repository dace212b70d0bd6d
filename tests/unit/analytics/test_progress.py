"""What the sink says of its progress is never more than is true, and soon all of it."""

from collections.abc import Sequence
from datetime import UTC, datetime, timedelta

import pytest
from aiokafka import TopicPartition
from aiokafka.errors import KafkaError
from hypothesis import given
from hypothesis import strategies as st

from servicekit.events.topics import FEEDBACK_RECORDED, replay_topic
from services.analytics.progress import Progress, ProgressKeeper
from tests.unit.analytics.analytics_fakes import RecordingStore

_ONE, _TWO = TopicPartition(FEEDBACK_RECORDED, 0), TopicPartition(FEEDBACK_RECORDED, 1)
_START = datetime(2026, 5, 1, 14, tzinfo=UTC)


def _at(second: float) -> datetime:
    return _START + timedelta(seconds=second)


class _Clock:
    """Moves when told to."""

    def __init__(self) -> None:
        self.second = 0.0

    def now(self) -> datetime:
        """The time."""
        return _at(self.second)

    def monotonic_s(self) -> float:
        """The same as seconds."""
        return self.second


class _Consumer:
    """Knows ends and commits; fails when told to."""

    def __init__(self) -> None:
        self.ends = {_ONE: 0, _TWO: 0}
        self.commits: dict[TopicPartition, int] = {}
        self.owned = {_ONE, _TWO, TopicPartition(replay_topic(FEEDBACK_RECORDED, "analytics"), 0)}
        self.fails = False

    def assignment(self) -> set[TopicPartition]:
        """What is owned."""
        return self.owned

    async def end_offsets(self, partitions: Sequence[TopicPartition]) -> dict[TopicPartition, int]:
        """The ends."""
        if self.fails:
            raise KafkaError
        return {partition: self.ends[partition] for partition in partitions}

    async def beginning_offsets(self, partitions: Sequence[TopicPartition]) -> dict[TopicPartition, int]:
        """Always 0."""
        return dict.fromkeys(partitions, 0)

    async def committed(self, partition: TopicPartition) -> int | None:
        """What was committed before."""
        return self.commits.get(partition)


@pytest.fixture
def keeper() -> tuple[ProgressKeeper, _Consumer, RecordingStore, _Clock]:
    """A keeper with all that it needs."""
    consumer, store, clock = _Consumer(), RecordingStore(), _Clock()
    return ProgressKeeper(consumer, store, clock=clock), consumer, store, clock


@given(
    steps=st.lists(st.tuples(st.sampled_from(["arrive", "ask", "store", "restart"]), st.integers(1, 5)), max_size=40)
)
def test_what_is_proven_is_stored(steps: list[tuple[str, int]]) -> None:
    """Whatever the order of arrivals, questions, inserts and rebalances: all that had arrived by then is stored."""
    progress, end, stored = Progress(), 0, 0
    arrivals: list[int] = []
    for second, (step, amount) in enumerate(steps):
        if step == "arrive":
            arrivals += [second] * amount
            end += amount
        elif step == "ask":
            progress.resume(_ONE, stored)
            progress.aim({_ONE: end}, asked=_at(second))
        elif step == "store":
            stored = min(end, stored + amount)
            progress.store({_ONE: stored})
        else:
            progress.restart()
        for moment, offset in progress.proven().values():
            assert offset == stored
            assert sum(_at(one) <= moment for one in arrivals) <= stored


async def test_idle_partitions_are_caught_up_as_time_goes_on(
    keeper: tuple[ProgressKeeper, _Consumer, RecordingStore, _Clock],
) -> None:
    """A partition in which nothing happens is stored up to now, and its time moves."""
    keeping, consumer, store, clock = keeper
    consumer.ends, consumer.commits = {_ONE: 7, _TWO: 0}, {_ONE: 7}
    await keeping.write_once()
    clock.second = 1
    await keeping.write_once()
    ((_sql, first), (_again, second)) = store.inserts
    assert first.count(b"14:00:00.000") == second.count(b"14:00:01.000") == 2
    assert b'"next_offset": 7' in first
    assert b".replay" not in first


async def test_while_the_sink_lags_the_last_proven_time_stands(
    keeper: tuple[ProgressKeeper, _Consumer, RecordingStore, _Clock],
) -> None:
    """And a sink that never quite catches up still proves the past."""
    keeping, consumer, store, clock = keeper
    consumer.owned = {_ONE}
    await keeping.write_once()
    for second in (1, 2, 3):
        clock.second, consumer.ends[_ONE] = second, 100 * second
        await keeping.write_once()
    assert len(store.inserts) == 1
    keeping.progress.store({_ONE: 150})
    clock.second, consumer.ends[_ONE] = 4, 400
    await keeping.write_once()
    assert b"14:00:01.000" in store.inserts[-1][1]


async def test_offsets_of_another_life_prove_nothing(
    keeper: tuple[ProgressKeeper, _Consumer, RecordingStore, _Clock],
) -> None:
    """A broker reborn empty counts from 0: what was stored before says nothing about it."""
    keeping, consumer, store, clock = keeper
    consumer.owned = {_ONE}
    keeping.progress.store({_ONE: 500})
    consumer.ends[_ONE], clock.second = 10, 1
    await keeping.write_once()
    assert not store.inserts
    keeping.progress.store({_ONE: 10})
    await keeping.write_once()
    assert len(store.inserts) == 1


async def test_nothing_is_written_without_an_answer(
    keeper: tuple[ProgressKeeper, _Consumer, RecordingStore, _Clock],
) -> None:
    """Brokers that are away leave the last word as it is."""
    keeping, consumer, store, _clock = keeper
    consumer.fails = True
    with pytest.raises(KafkaError):
        await keeping.write_once()
    assert not store.inserts
