"""The evaluator on the memory bus: what it publishes for what it consumes, and what a failure leaves behind."""

import threading
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from datetime import UTC, datetime

import pytest
from google.protobuf.message import Message
from google.protobuf.timestamp_pb2 import Timestamp

from binnacle.events.v1.evaluation_scored_pb2 import EvaluationScored
from binnacle.events.v1.feedback_recorded_pb2 import FeedbackRecorded, FeedbackType
from binnacle.events.v1.interaction_completed_pb2 import InteractionCompleted, InteractionOutcome
from servicekit.adapters.memory.event_bus import MemoryEventBus
from servicekit.domain.score import Metric, Score, Unmeasured
from servicekit.errors import BackendUnavailable
from servicekit.events.topics import EVALUATION_SCORED, FEEDBACK_RECORDED, INTERACTION_COMPLETED
from servicekit.ports.event_bus import OutgoingEvent
from servicekit.testing.clocks import FakeClock
from services.evaluator.chunk_cache import CachedChunks
from services.evaluator.evaluating import Evaluator
from services.evaluator.events import EvaluatorEvents
from services.evaluator.scoring import score_subject
from services.evaluator.subject import Subject

HASH = "a" * 64
TEXT = "Tuples are immutable sequences."


class FakeChunks:
    """Chunk texts in memory; `failures` makes that many reads fail."""

    def __init__(self, texts: Mapping[str, str | Unmeasured]) -> None:
        self.texts = dict(texts)
        self.failures = 0
        self.asked: list[tuple[str, tuple[str, ...]]] = []

    async def fetch_texts(self, tenant: str, content_hashes: Sequence[str]) -> Mapping[str, str | Unmeasured]:
        """What is there, the rest not found."""
        self.asked.append((tenant, tuple(content_hashes)))
        if self.failures:
            self.failures -= 1
            raise BackendUnavailable("told to fail")
        return {key: self.texts.get(key, Unmeasured.CHUNK_NOT_FOUND) for key in content_hashes}


def answered(request_id: str = "r-1", answer: str = "Tuples are immutable [1].") -> InteractionCompleted:
    """An answered interaction with one used chunk and one citation."""
    message = InteractionCompleted(
        request_id=request_id,
        outcome=InteractionOutcome.INTERACTION_OUTCOME_ANSWERED,
        query="Are tuples immutable?",
        answer=answer,
        route="docs",
        model="default",
    )
    message.complete_time.FromDatetime(datetime(2026, 1, 1, tzinfo=UTC))
    message.prompt.version = "3"
    message.chunks.add(content_hash=HASH, rank=1, used=True)
    message.chunks.add(content_hash="b" * 64, rank=2, used=False)
    citation = message.citations.add(content_hash=HASH)
    citation.answer_span.start, citation.answer_span.end = 21, 24
    return message


@asynccontextmanager
async def evaluating(chunks: FakeChunks) -> AsyncIterator[MemoryEventBus]:
    """A bus with the evaluator consuming from it."""
    bus = MemoryEventBus()
    events = EvaluatorEvents(Evaluator(chunks=chunks, clock=FakeClock()), bus)
    for subscription in events.subscriptions():
        bus.subscribe(subscription)
    await bus.start_consuming()
    try:
        yield bus
    finally:
        await bus.stop_consuming()


async def send(bus: MemoryEventBus, topic: str, message: Message, event_id: str = "e-1") -> None:
    """Publish as a gateway would, and wait until it is handled."""
    await bus.publish(OutgoingEvent(topic=topic, key="r-1", id=event_id, tenant="acme", message=message))
    await bus.drain()


def scored(bus: MemoryEventBus) -> list[EvaluationScored]:
    """The evaluations published, in order."""
    found = [event.message for event in bus.published if event.topic == EVALUATION_SCORED]
    return [message for message in found if isinstance(message, EvaluationScored)]


async def test_an_interaction_yields_one_evaluation_per_metric() -> None:
    """Each carries metric, version, request, route, model, prompt version and an inclusion probability of 1."""
    async with evaluating(FakeChunks({HASH: TEXT})) as bus:
        await send(bus, INTERACTION_COMPLETED, answered())
        found = scored(bus)
    assert [message.metric for message in found] == list(Metric)
    for message in found:
        assert (message.request_id, message.route, message.model) == ("r-1", "docs", "default")
        assert (message.prompt_version, message.inclusion_probability) == ("3", 1.0)
        assert message.metric_version
        assert message.HasField("value")
    values = {message.metric: message.value for message in found}
    assert values["groundedness"] == pytest.approx(1.0)
    assert values["citation_precision"] == pytest.approx(1.0)


async def test_evaluations_are_keyed_by_request_in_the_events_tenant() -> None:
    """Key, tenant and event id of what is published come from the interaction and the metric."""
    async with evaluating(FakeChunks({HASH: TEXT})) as bus:
        await send(bus, INTERACTION_COMPLETED, answered())
    events = [event for event in bus.published if event.topic == EVALUATION_SCORED]
    assert {(event.key, event.tenant) for event in events} == {("r-1", "acme")}
    assert len({event.id for event in events}) == len(Metric)


async def test_a_repeated_interaction_repeats_the_same_events() -> None:
    """The second delivery has the ids of the first, so consumers count it once."""
    async with evaluating(FakeChunks({HASH: TEXT})) as bus:
        await send(bus, INTERACTION_COMPLETED, answered(), "e-1")
        first = {event.id for event in bus.published if event.topic == EVALUATION_SCORED}
        await send(bus, INTERACTION_COMPLETED, answered(), "e-1")
    assert {event.id for event in bus.published if event.topic == EVALUATION_SCORED} == first


@pytest.mark.parametrize("outcome", [number for number in InteractionOutcome.values() if number])
async def test_every_outcome_yields_evaluations(outcome: InteractionOutcome) -> None:
    """Blocked, failed, cancelled: each interaction is accounted for, with reasons where there is no value."""
    message = InteractionCompleted(request_id="r-1", outcome=outcome, query="q")
    async with evaluating(FakeChunks({})) as bus:
        await send(bus, INTERACTION_COMPLETED, message)
    found = scored(bus)
    assert len(found) == len(Metric)
    assert all(message.HasField("value") or message.unmeasured_reason for message in found)
    assert all(message.HasField("interaction_time") for message in found)


async def test_an_erased_chunk_gives_its_reason() -> None:
    """A tombstone at the retriever becomes CHUNK_ERASED in the event."""
    async with evaluating(FakeChunks({HASH: Unmeasured.CHUNK_ERASED})) as bus:
        await send(bus, INTERACTION_COMPLETED, answered())
    reasons = {message.metric: message.unmeasured_reason for message in scored(bus)}
    assert reasons["groundedness"] == "CHUNK_ERASED"
    assert reasons["answer_relevance"] == ""


async def test_a_retriever_that_is_away_delays_and_loses_nothing() -> None:
    """The event is tried again until the texts can be read."""
    chunks = FakeChunks({HASH: TEXT})
    chunks.failures = 2
    async with evaluating(chunks) as bus:
        await send(bus, INTERACTION_COMPLETED, answered())
    assert len(scored(bus)) == len(Metric)
    assert not bus.dead_letters


async def test_an_unacknowledged_evaluation_keeps_the_event_uncommitted() -> None:
    """When one publish fails the whole event is scored and published again."""
    chunks = FakeChunks({HASH: TEXT})
    async with evaluating(chunks) as bus:
        original = bus.publish

        async def failing_once(event: OutgoingEvent) -> None:
            bus.publish = original  # type: ignore[method-assign]  # the fake lasts for one call
            raise BackendUnavailable("told to fail", reason="EVENT_NOT_RECORDED")

        await original(OutgoingEvent(topic=INTERACTION_COMPLETED, key="r-1", id="e", tenant="acme", message=answered()))
        bus.publish = failing_once  # type: ignore[method-assign]  # the fake lasts for one call
        await bus.drain()
    assert {message.metric for message in scored(bus)} == set(Metric)
    assert len(chunks.asked) == 2


async def test_feedback_becomes_a_score_with_the_route_of_its_interaction() -> None:
    """A rating of 4 is 0.75, names its feedback and carries what is remembered of the interaction."""
    rating = FeedbackRecorded(feedback_id="f-1", request_id="r-1", kind=FeedbackType.FEEDBACK_TYPE_RATING, rating=4)
    rating.record_time.FromDatetime(datetime(2026, 1, 1, tzinfo=UTC))
    async with evaluating(FakeChunks({HASH: TEXT})) as bus:
        await send(bus, INTERACTION_COMPLETED, answered())
        await send(bus, FEEDBACK_RECORDED, rating, "f-1")
    last = scored(bus)[-1]
    assert (last.metric, last.value, last.feedback_id, last.route) == ("feedback.rating", 0.75, "f-1", "docs")


async def test_two_ratings_of_one_request_are_two_evaluations() -> None:
    """Feedback ids are part of the evaluation's identity."""
    async with evaluating(FakeChunks({})) as bus:
        for feedback_id in ("f-1", "f-2"):
            rating = FeedbackRecorded(feedback_id=feedback_id, request_id="r-1", kind=1, rating=5)
            await send(bus, FEEDBACK_RECORDED, rating, feedback_id)
    first, second = scored(bus)
    assert first.evaluation_id != second.evaluation_id


async def test_an_interaction_without_request_id_is_a_dead_letter() -> None:
    """What can never be scored goes to the dead-letter topic, and the next event is handled."""
    async with evaluating(FakeChunks({HASH: TEXT})) as bus:
        await send(bus, INTERACTION_COMPLETED, InteractionCompleted(query="q"))
        await send(bus, INTERACTION_COMPLETED, answered(), "e-2")
    assert len(bus.dead_letters) == 1
    assert len(scored(bus)) == len(Metric)


async def test_a_time_that_no_calendar_has_is_a_dead_letter() -> None:
    """An absurd time is not retried for ever: the record is put aside and the next event is handled."""
    absurd = Timestamp(seconds=2**62)
    interaction = answered()
    interaction.complete_time.CopyFrom(absurd)
    async with evaluating(FakeChunks({HASH: TEXT})) as bus:
        await send(bus, INTERACTION_COMPLETED, interaction)
        await send(bus, FEEDBACK_RECORDED, FeedbackRecorded(request_id="r-1", feedback_id="f", record_time=absurd))
        await send(bus, INTERACTION_COMPLETED, answered(), "e-2")
    assert len(bus.dead_letters) == 2
    assert len(scored(bus)) == len(Metric)


async def test_feedback_for_an_id_beyond_the_calendar_is_scored() -> None:
    """An id that reads as a time after the year 9999 tells no time: the feedback's own stands in."""
    feedback = FeedbackRecorded(request_id="ffffffff-ffff-7fff-bfff-ffffffffffff", feedback_id="f")
    feedback.record_time.FromDatetime(datetime(2026, 1, 1, tzinfo=UTC))
    async with evaluating(FakeChunks({})) as bus:
        await send(bus, FEEDBACK_RECORDED, feedback)
    assert [one.interaction_time for one in scored(bus)] == [feedback.record_time]


async def test_scoring_leaves_the_event_loop_free(monkeypatch: pytest.MonkeyPatch) -> None:
    """A long answer takes seconds to score: not on the thread that sends the consumer's heartbeats."""
    threads: list[int] = []

    def score(subject: Subject) -> tuple[Score, ...]:
        threads.append(threading.get_ident())
        return score_subject(subject)

    monkeypatch.setattr("services.evaluator.evaluating.score_subject", score)
    async with evaluating(FakeChunks({HASH: TEXT})) as bus:
        await send(bus, INTERACTION_COMPLETED, answered())
    assert threads
    assert threading.get_ident() not in threads


async def test_only_used_chunks_are_read() -> None:
    """A chunk that was retrieved and left out of the prompt is no evidence."""
    chunks = FakeChunks({HASH: TEXT})
    async with evaluating(chunks) as bus:
        await send(bus, INTERACTION_COMPLETED, answered())
    assert chunks.asked == [("acme", (HASH,))]


async def test_the_cache_asks_once_per_tenant_and_text() -> None:
    """A text is remembered for its tenant alone, and what is missing is asked for again."""
    source = FakeChunks({HASH: TEXT})
    cache = CachedChunks(source, clock=FakeClock(), max_entries=10, max_age_s=60)
    await cache.fetch_texts("acme", (HASH, "b" * 64))
    await cache.fetch_texts("acme", (HASH, "b" * 64))
    await cache.fetch_texts("globex", (HASH,))
    assert source.asked == [("acme", (HASH, "b" * 64)), ("acme", ("b" * 64,)), ("globex", (HASH,))]


async def test_the_cache_notices_an_erasure_after_its_age() -> None:
    """A text older than the age is read again, so that an erased chunk is not scored for ever."""
    source, clock = FakeChunks({HASH: TEXT}), FakeClock()
    cache = CachedChunks(source, clock=clock, max_entries=10, max_age_s=60)
    await cache.fetch_texts("acme", (HASH,))
    source.texts[HASH] = Unmeasured.CHUNK_ERASED
    clock.advance(61)
    assert (await cache.fetch_texts("acme", (HASH,)))[HASH] is Unmeasured.CHUNK_ERASED


async def test_the_cache_drops_the_least_recently_used() -> None:
    """At its bound the text that was not asked for longest goes."""
    source = FakeChunks({key * 64: key for key in "abc"})
    cache = CachedChunks(source, clock=FakeClock(), max_entries=2, max_age_s=60)
    for key in ("a", "b", "a", "c", "a"):
        await cache.fetch_texts("acme", (key * 64,))
    assert [asked[1][0][0] for asked in source.asked] == ["a", "b", "c"]
