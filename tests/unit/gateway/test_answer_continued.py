"""What one answer takes from others: a history, a conversation, an answer recorded under the same key."""

import asyncio
from collections.abc import Sequence

import pytest

from servicekit.domain.prompt import Message, Role
from servicekit.errors import Conflict, InvalidRequest
from services.gateway.answer import Outcome
from services.gateway.question import Question
from tests.unit.gateway.gateway_fakes import ASKER, REDACTED, SECRET, FakeGenerator, Gateway, budget


async def test_given_history_is_judged_too() -> None:
    """Turns of a history that comes with the question are redacted like it; the product's instructions pass."""
    history = (
        Message(Role.SYSTEM, "Refuse whoever says BLOCK."),
        Message(Role.USER, f"I am {SECRET}"),
        Message(Role.ASSISTANT, f"Hello, {SECRET}."),
    )
    gateway = Gateway()
    await gateway.answering.answer(Question("What?", history=history), asker=ASKER, budget=budget())
    contents = [message.content for message in gateway.generator.requests[0].history]
    assert contents == ["Refuse whoever says BLOCK.", f"I am {REDACTED}", f"Hello, {REDACTED}."]


@pytest.mark.parametrize("role", [Role.USER, Role.ASSISTANT])
async def test_given_history_can_block(role: Role) -> None:
    """A turn that policy blocks blocks the question, whoever is said to have spoken it."""
    gateway = Gateway()
    blocked = Question("What?", history=(Message(role, "BLOCK"),))
    answer = await gateway.answering.answer(blocked, asker=ASKER, budget=budget())
    assert answer.outcome is Outcome.BLOCKED
    assert gateway.generator.requests == []


async def test_conversation_is_kept_and_continued() -> None:
    """The second question of a conversation is generated with the first turn."""
    gateway = Gateway()
    first = await gateway.answering.answer(Question("One?", conversation_id="c"), asker=ASKER, budget=budget())
    await gateway.answering.answer(Question("Two?", conversation_id="c"), asker=ASKER, budget=budget())
    assert gateway.generator.requests[1].history == (
        Message(Role.USER, "One?"),
        Message(Role.ASSISTANT, first.text),
    )
    assert gateway.bus.interactions()[1].conversation_id == "c"


@pytest.mark.parametrize(("route", "tokens"), [("passthrough", ("One.",)), ("default", (" ",)), ("default", ())])
async def test_what_cannot_be_continued_is_no_turn(route: str, tokens: Sequence[str]) -> None:
    """An answer without words would be refused as history, and an unjudged one would never be judged again."""
    gateway = Gateway()
    gateway.generator.tokens = tokens
    first = Question("One?", conversation_id="c", route=route)
    await gateway.answering.answer(first, asker=ASKER, budget=budget())
    await gateway.answering.answer(Question("Two?", conversation_id="c"), asker=ASKER, budget=budget())
    assert gateway.generator.requests[1].history == ()


async def test_repeat_under_a_key_returns_the_recorded_answer() -> None:
    """The same key and question give the same answer, and no second record."""
    gateway = Gateway()
    question = Question("What?", idempotency_key="k", fingerprint=b"q")
    first = await gateway.answering.answer(question, asker=ASKER, budget=budget())
    again = await gateway.answering.answer(question, asker=ASKER, budget=budget(), emit=gateway.emit)
    assert (again.request_id, again.text, again.replayed) == (first.request_id, first.text, True)
    assert gateway.kinds() == ["Accepted", "Retrieved", "Token", "Completed"]
    assert len(gateway.bus.events) == 1
    assert len(gateway.generator.requests) == 1


async def test_key_with_another_question_is_refused() -> None:
    """A key belongs to one question."""
    gateway = Gateway()
    await gateway.answering.answer(
        Question("What?", idempotency_key="k", fingerprint=b"1"), asker=ASKER, budget=budget()
    )
    with pytest.raises(InvalidRequest) as caught:
        await gateway.answering.answer(
            Question("Else?", idempotency_key="k", fingerprint=b"2"), asker=ASKER, budget=budget()
        )
    assert caught.value.field == "question.idempotency_key"


async def test_key_in_flight_conflicts() -> None:
    """While the first request works, a repeat is told to wait."""
    gateway = Gateway()
    reached, go = asyncio.Event(), asyncio.Event()

    async def hook(place: str) -> None:
        if place == "generate":
            reached.set()
            await go.wait()

    gateway.generator.hook = hook
    question = Question("What?", idempotency_key="k", fingerprint=b"q")
    first = asyncio.create_task(gateway.answering.answer(question, asker=ASKER, budget=budget()))
    await reached.wait()
    with pytest.raises(Conflict):
        await gateway.answering.answer(question, asker=ASKER, budget=budget())
    go.set()
    await first


async def test_failed_request_frees_its_key() -> None:
    """After a failure a repeat under the key works anew."""
    gateway = Gateway()

    async def hook(place: str) -> None:
        if place == "generate":
            raise InvalidRequest("no", field="model")

    gateway.generator.hook = hook
    question = Question("What?", idempotency_key="k", fingerprint=b"q")
    with pytest.raises(InvalidRequest):
        await gateway.answering.answer(question, asker=ASKER, budget=budget())
    gateway.generator.hook = FakeGenerator().hook
    answer = await gateway.answering.answer(question, asker=ASKER, budget=budget())
    assert not answer.replayed
    assert len(gateway.bus.events) == 2
