"""One answer through the gateway's domain: its events, its outcomes, its record."""

import asyncio

import pytest

from binnacle.events.v1 import interaction_completed_pb2 as pb
from servicekit.errors import BackendUnavailable, InvalidRequest, Overloaded
from services.gateway.answer import AnswerEvent, Completed, Outcome, Retracted, Token, VerdictFound
from services.gateway.question import Channel, Question, RetrievalMode
from services.gateway.standing_in import BLOCKED_TEXT, REFUSAL_TEXT
from tests.unit.gateway.gateway_fakes import (
    ASKER,
    REDACTED,
    SECRET,
    FakeBus,
    FakeGenerator,
    FakeRetriever,
    Gateway,
    budget,
    generated,
)


def _tokens(gateway: Gateway) -> str:
    return "".join(event.text for event in gateway.events if isinstance(event, Token))


async def test_events_come_in_order_and_tokens_join_to_the_answer() -> None:
    """Accepted, retrieved, tokens, completed; the tokens are the answer."""
    gateway = Gateway()
    answer = await gateway.answering.answer(Question("What?"), asker=ASKER, budget=budget(), emit=gateway.emit)
    assert gateway.kinds()[:2] == ["Accepted", "Retrieved"]
    assert gateway.kinds()[-1] == "Completed"
    assert set(gateway.kinds()[2:-1]) == {"Token"}
    assert _tokens(gateway) == answer.text == "Kafka keeps records. They have offsets [1]."
    assert answer.outcome is Outcome.ANSWERED
    assert gateway.ids.verify(answer.request_id, "acme")


async def test_the_record_holds_everything_known() -> None:
    """The one event of an answered request pins its request, provenance, usage and times."""
    gateway = Gateway()
    question = Question(
        "What?", channel=Channel.GRPC_STREAM, end_user_id="u1", project="shop", labels={"page": "faq"}, top_k=2
    )
    answer = await gateway.answering.answer(question, asker=ASKER, budget=budget(10))
    (event,) = gateway.bus.events
    (record,) = gateway.bus.interactions()
    assert event.key == record.request_id == answer.request_id
    assert event.tenant == record.tenant_id == "acme"
    assert record.outcome == pb.INTERACTION_OUTCOME_ANSWERED
    assert (record.query, record.answer) == ("What?", answer.text)
    assert (record.end_user_id, record.project, dict(record.labels)) == ("u1", "shop", {"page": "faq"})
    assert [(ref.chunk_id, ref.rank, ref.used) for ref in record.chunks] == [("c1", 1, True), ("c2", 2, False)]
    assert record.chunks[0].content_hash == f"{1:064x}"
    assert record.corpus_version == 7
    assert record.embedding_model == "test-embedder"
    assert (record.usage.input_tokens, record.usage.output_tokens, record.cost_microusd) == (10, 4, 12)
    assert record.price_version == "prices-1"
    assert record.attempts[0].engine == "engine"
    assert record.prompt.prompt_id == "answer"
    assert record.policy_version == "p1"
    assert {timing.stage for timing in record.timings} == {
        "check_input",
        "search_chunks",
        "check_retrieved",
        "generate",
        "check_output",
    }
    assert 0 < record.time_to_first_token_us <= record.duration_us
    assert record.deadline_granted_us == pytest.approx(10_000_000, rel=0.01)
    assert (record.release, record.route, record.variant, record.variant_probability) == ("default", "default", "", 1)
    assert answer.timings[-1].stage == "record"
    assert record.channel == "grpc-stream"


async def test_retrieval_runs_while_the_input_is_judged() -> None:
    """The search begins before the input's verdict is there, and is marked speculative."""
    searched = asyncio.Event()
    gateway = Gateway()

    async def hook(place: str) -> None:
        if place == "search_chunks":
            searched.set()
        elif place == "check_input":
            await searched.wait()

    gateway.hook_all(hook)
    await gateway.answering.answer(Question("What?"), asker=ASKER, budget=budget(5))
    assert [search["speculative"] for search in gateway.retriever.searches] == [True]


async def test_redacted_input_is_searched_again_and_recorded_redacted() -> None:
    """After a redaction every recorded stage saw the redacted text."""
    gateway = Gateway()
    await gateway.answering.answer(Question(f"Who is {SECRET}?"), asker=ASKER, budget=budget())
    assert [(search["query"], search["speculative"]) for search in gateway.retriever.searches] == [
        (f"Who is {SECRET}?", True),
        (f"Who is {REDACTED}?", False),
    ]
    assert gateway.generator.requests[0].question == f"Who is {REDACTED}?"
    assert gateway.bus.interactions()[0].query == f"Who is {REDACTED}?"
    assert SECRET not in str(gateway.bus.interactions()[0])


async def test_blocked_input_skips_generation() -> None:
    """A block of the input ends the path with a stand-in, told as an outcome."""
    gateway = Gateway()
    answer = await gateway.answering.answer(Question("BLOCK this"), asker=ASKER, budget=budget(), emit=gateway.emit)
    assert gateway.kinds() == ["Accepted", "Retrieved", "VerdictFound", "Token", "Completed"]
    assert (answer.outcome, answer.text, _tokens(gateway)) == (Outcome.BLOCKED, BLOCKED_TEXT, BLOCKED_TEXT)
    assert gateway.generator.requests == []
    (record,) = gateway.bus.interactions()
    assert (record.outcome, record.query) == (pb.INTERACTION_OUTCOME_BLOCKED, "")


async def test_late_block_retracts_what_was_released() -> None:
    """A block of a later sentence withdraws the earlier ones and stops the generation."""
    gateway = Gateway(generator=FakeGenerator(tokens=("Fine. ", "Then ", "BLOCK it. ", "More ", "text.")))
    first_released = asyncio.Event()

    async def emit(event: AnswerEvent) -> None:
        gateway.events.append(event)
        if isinstance(event, Token):
            first_released.set()

    async def hook(place: str) -> None:
        if place == "token" and len(gateway.guard.outputs) > 0:
            await first_released.wait()
        await asyncio.sleep(0)

    gateway.generator.hook = hook
    answer = await gateway.answering.answer(Question("What?"), asker=ASKER, budget=budget(), emit=emit)
    assert answer.outcome is Outcome.BLOCKED
    assert gateway.generator.closed == 1
    assert gateway.kinds()[-2:] == ["Retracted", "Completed"]
    retracted = next(event for event in gateway.events if isinstance(event, Retracted))
    assert (retracted.reason, retracted.replacement) == ("BLOCKED_OUTPUT", BLOCKED_TEXT)
    (record,) = gateway.bus.interactions()
    assert (record.retracted, record.answer) == (True, BLOCKED_TEXT)


async def test_redacted_output_is_what_the_caller_gets() -> None:
    """Redaction of a sentence changes tokens, answer and record alike, and tells the verdict before the text."""
    gateway = Gateway(generator=FakeGenerator(tokens=("Ask ", f"{SECRET}", " about it. ", "Bye.")))
    answer = await gateway.answering.answer(Question("What?"), asker=ASKER, budget=budget(), emit=gateway.emit)
    assert answer.text == _tokens(gateway) == f"Ask {REDACTED} about it. Bye."
    kinds = gateway.kinds()
    assert kinds.index("VerdictFound") < kinds.index("Token")
    assert gateway.bus.interactions()[0].answer == answer.text


async def test_flagged_input_goes_on_with_a_verdict() -> None:
    """A flag changes nothing but is told."""
    gateway = Gateway()
    answer = await gateway.answering.answer(Question("FLAG me"), asker=ASKER, budget=budget(), emit=gateway.emit)
    assert answer.outcome is Outcome.ANSWERED
    assert [event.verdict.action for event in gateway.events if isinstance(event, VerdictFound)] == ["flag"]
    assert len(gateway.retriever.searches) == 1


async def test_blocked_chunks_never_reach_the_prompt() -> None:
    """A chunk that the guard blocks is left out, a redacted one goes on redacted."""
    gateway = Gateway(retriever=FakeRetriever(texts=("BLOCK me", f"Mail {SECRET}.", "Good.")))
    await gateway.answering.answer(Question("What?"), asker=ASKER, budget=budget())
    assert [chunk.text for chunk in gateway.generator.requests[0].chunks] == [f"Mail {REDACTED}.", "Good."]
    assert len(gateway.bus.interactions()[0].chunks) == 3


async def test_refusal_of_the_engine_is_an_outcome() -> None:
    """An engine that declines for want of support makes the outcome refused, with its text."""
    gateway = Gateway(generator=FakeGenerator(tokens=("No idea.",), end=generated(refused=True)))
    answer = await gateway.answering.answer(Question("What?"), asker=ASKER, budget=budget())
    assert (answer.outcome, answer.text) == (Outcome.REFUSED, "No idea.")


@pytest.mark.parametrize(
    ("place", "cause"),
    [
        ("check_input", "GUARDRAIL_UNAVAILABLE"),
        ("search_chunks", "RETRIEVER_UNAVAILABLE"),
        ("check_retrieved", "GUARDRAIL_UNAVAILABLE"),
        ("generate", "GENERATOR_UNAVAILABLE"),
        ("check_output", "GUARDRAIL_UNAVAILABLE"),
    ],
)
async def test_a_dependency_that_is_away_gives_an_honest_refusal(place: str, cause: str) -> None:
    """The last rung says what was missing, in the answer and in the event."""

    async def hook(reached: str) -> None:
        if reached == place:
            raise BackendUnavailable("away")

    gateway = Gateway()
    gateway.hook_all(hook)
    answer = await gateway.answering.answer(Question("What?"), asker=ASKER, budget=budget(), emit=gateway.emit)
    assert (answer.outcome, answer.text) == (Outcome.REFUSED, REFUSAL_TEXT)
    assert [(one.rung, one.cause) for one in answer.degradations] == [("honest_refusal", cause)]
    (record,) = gateway.bus.interactions()
    assert record.outcome == pb.INTERACTION_OUTCOME_REFUSED
    assert record.degradations[0].cause == cause
    assert isinstance(gateway.events[-1], Completed)


@pytest.mark.parametrize("place", ["check_input", "check_retrieved", "check_output"])
async def test_failing_open_answers_and_withholds_the_texts(place: str) -> None:
    """Where the setting lets unjudged text pass, the answer says so and the event holds no text."""

    async def hook(reached: str) -> None:
        if reached == place:
            raise BackendUnavailable("away")

    gateway = Gateway(fail_open=True)
    gateway.hook_all(hook)
    answer = await gateway.answering.answer(Question("What?"), asker=ASKER, budget=budget())
    assert answer.outcome is Outcome.ANSWERED
    assert answer.degradations[0].cause == "GUARDRAIL_UNAVAILABLE"
    (record,) = gateway.bus.interactions()
    assert (record.query, record.answer) == ("", "")


async def test_failing_open_names_every_surface_that_went_unjudged() -> None:
    """A guardrail that stays away is a degradation for input, chunks and output each, once."""

    async def hook(reached: str) -> None:
        if reached.startswith("check"):
            raise BackendUnavailable("away")

    gateway = Gateway(fail_open=True)
    gateway.hook_all(hook)
    answer = await gateway.answering.answer(Question("What?"), asker=ASKER, budget=budget())
    assert [one.rung for one in answer.degradations] == ["unguarded_input", "unguarded_chunks", "unguarded_output"]


async def test_generator_that_breaks_off_after_text_fails() -> None:
    """Released text cannot be made whole: the request fails, and its record says why."""

    async def hook(place: str) -> None:
        if place == "token" and gateway.kinds().count("Token") >= 1:
            raise BackendUnavailable("broken", reason="ENGINE_GONE")
        await asyncio.sleep(0)

    gateway = Gateway(generator=FakeGenerator(tokens=("One. ", "Two. ", "Three. ", "Four. ", "Five. ")))
    gateway.generator.hook = hook
    with pytest.raises(BackendUnavailable):
        await gateway.answering.answer(Question("What?"), asker=ASKER, budget=budget(), emit=gateway.emit)
    (record,) = gateway.bus.interactions()
    assert (record.outcome, record.error_reason) == (pb.INTERACTION_OUTCOME_FAILED, "ENGINE_GONE")
    assert record.answer == _tokens(gateway)
    assert record.usage.estimated
    assert gateway.kinds()[-1] != "Completed"


async def test_invalid_request_of_a_backend_reaches_the_caller() -> None:
    """An unknown model is the caller's mistake, told as the generator tells it."""

    async def hook(place: str) -> None:
        if place == "generate":
            raise InvalidRequest("no such model", field="model", reason="UNKNOWN_MODEL")

    gateway = Gateway()
    gateway.generator.hook = hook
    with pytest.raises(InvalidRequest, match="no such model"):
        await gateway.answering.answer(Question("What?", model="x"), asker=ASKER, budget=budget())
    assert gateway.bus.interactions()[0].error_reason == "UNKNOWN_MODEL"


async def test_no_acknowledgement_means_not_recorded() -> None:
    """Without the bus's acknowledgement no answer is completed."""

    async def hook(place: str) -> None:
        if place == "publish":
            raise BackendUnavailable("no broker")

    gateway = Gateway(bus=FakeBus(hook=hook))
    with pytest.raises(BackendUnavailable) as caught:
        await gateway.answering.answer(Question("What?"), asker=ASKER, budget=budget(), emit=gateway.emit)
    assert caught.value.reason == "EVENT_NOT_RECORDED"
    assert "Completed" not in gateway.kinds()


async def test_passthrough_streams_tokens_as_they_come_and_withholds_texts() -> None:
    """A route without guard asks no guard, holds nothing back, and records no text."""
    gateway = Gateway()
    question = Question("What?", route="passthrough")
    answer = await gateway.answering.answer(question, asker=ASKER, budget=budget(), emit=gateway.emit)
    assert [event.text for event in gateway.events if isinstance(event, Token)] == list(gateway.generator.tokens)
    assert (gateway.guard.inputs, gateway.retriever.searches) == ([], [])
    assert gateway.generator.requests[0].model == "echo"
    assert answer.model == "echo"
    assert (gateway.bus.interactions()[0].query, gateway.bus.interactions()[0].answer) == ("", "")


async def test_retrieval_can_be_switched_off_by_the_question() -> None:
    """Without retrieval the guards still judge."""
    gateway = Gateway()
    question = Question("What?", retrieval_mode=RetrievalMode.NONE)
    await gateway.answering.answer(question, asker=ASKER, budget=budget())
    assert gateway.retriever.searches == []
    assert gateway.guard.inputs == ["What?"]


async def test_past_the_bound_requests_are_refused_at_once() -> None:
    """With all places taken a request gets a retry delay and no record."""
    gateway = Gateway(max_in_flight=1)
    reached, go = asyncio.Event(), asyncio.Event()

    async def hook(place: str) -> None:
        if place == "generate":
            reached.set()
            await go.wait()

    gateway.generator.hook = hook
    first = asyncio.create_task(gateway.answering.answer(Question("What?"), asker=ASKER, budget=budget()))
    await reached.wait()
    with pytest.raises(Overloaded) as caught:
        await gateway.answering.answer(Question("What?"), asker=ASKER, budget=budget())
    assert caught.value.retry_after_s > 0
    go.set()
    await first
    assert len(gateway.bus.events) == 1


async def test_unknown_route_and_release_name_what_exists() -> None:
    """A route or a release that is not there is the caller's mistake, with the valid names."""
    gateway = Gateway()
    with pytest.raises(InvalidRequest, match="default, passthrough"):
        await gateway.answering.answer(Question("What?", route="nope"), asker=ASKER, budget=budget())
    with pytest.raises(InvalidRequest, match="release"):
        await gateway.answering.answer(Question("What?", release="r9"), asker=ASKER, budget=budget())
    assert gateway.bus.events == []
