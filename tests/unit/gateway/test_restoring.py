"""Answers with the end user's values put back: told to whom may have them, recorded and kept redacted."""

import json
from collections.abc import Awaitable, Callable
from dataclasses import replace
from typing import Any

import pytest

from binnacle.gateway.v1 import gateway_service_pb2 as pb
from servicekit.domain.generation import Degradation
from servicekit.domain.verdict import Span
from servicekit.errors import BackendUnavailable, PermissionDenied
from services.gateway import convert, openai_convert
from services.gateway.answer import Answer, Completed, Token
from services.gateway.backends import AnswerCitation, CheckContext
from services.gateway.question import Asker, Channel, Question
from tests.unit.gateway.gateway_fakes import (
    ASKER,
    REDACTED,
    SECRET,
    FakeGenerator,
    FakeGuard,
    Gateway,
    budget,
    generated,
)

TRUSTED = Asker("acme", "key-2", may_restore=True)
ASKED = Question(f"I am {SECRET}. Who am I?", restore_pii=True, conversation_id="c-1")
SAYS = ("You ", f"are {REDACTED}. ", "See it [1].")
SCHEMA = '{"type": "object", "properties": {"who": {"type": "string", "maxLength": 30}}, "required": ["who"]}'


def citation(start: int) -> AnswerCitation:
    """A marker at a place of the answer as it was generated."""
    return AnswerCitation("[1]", Span(start, start + 3), "c1", "d", 1, "0" * 64, Span(0, 1), "", "")


def gateway(*tokens: str, **changes: object) -> Gateway:
    """A gateway whose model says this."""
    return Gateway(generator=FakeGenerator(tokens=list(tokens), end=generated(**changes)))


async def ask(subject: Gateway, question: Question = ASKED, *, asker: Asker = TRUSTED) -> Answer:
    """One answer; its events are kept."""
    return await subject.answering.answer(question, asker=asker, budget=budget(), emit=subject.emit)


def tokens(subject: Gateway) -> str:
    """The tokens told since the last answer, joined."""
    return "".join(event.text for event in subject.events if isinstance(event, Token))


async def test_the_caller_gets_values_and_the_record_keeps_placeholders() -> None:
    """Tokens and answer are restored and agree, citations stand where their markers are; the record is redacted."""
    subject = gateway(*SAYS, citations=(citation(len("".join(SAYS)) - 4),))
    answer = await ask(subject)
    assert answer.text == tokens(subject) == f"You are {SECRET}. See it [1]."
    (cited,) = answer.citations
    assert answer.text[cited.span.start : cited.span.end] == "[1]"
    (record,) = subject.bus.interactions()
    assert record.answer == f"You are {REDACTED}. See it [1]."
    assert SECRET not in str(subject.bus.events)
    assert {context for _, context in subject.guard.restored} == {CheckContext(answer.request_id, "c-1", "default")}


async def test_history_is_kept_redacted() -> None:
    """The next question's history holds the placeholder, whoever asked the first."""
    subject = gateway(*SAYS)
    await ask(subject)
    kept = await subject.answering.conversations.messages("c-1", tenant="acme")
    assert SECRET not in str(kept)
    assert REDACTED in kept[-1].content


async def test_without_the_scope_it_is_refused_and_not_recorded() -> None:
    """PERMISSION_DENIED names the scope; nothing was asked of anybody."""
    subject = gateway(*SAYS)
    with pytest.raises(PermissionDenied, match="scope 'restore'"):
        await ask(subject, asker=ASKER)
    assert subject.bus.events == []
    assert subject.guard.inputs == []


async def test_whoever_does_not_ask_for_values_gets_none() -> None:
    """The scope alone restores nothing."""
    subject = gateway(*SAYS)
    answer = await ask(subject, replace(ASKED, restore_pii=False))
    assert REDACTED in answer.text == tokens(subject)
    assert subject.guard.restored == []


async def test_a_repeat_is_restored_anew_or_not() -> None:
    """What is kept under the key is redacted: each repeat that wishes asks the guardrail, others do not."""
    subject = gateway(*SAYS, citations=(citation(len("".join(SAYS)) - 4),))
    question = replace(ASKED, idempotency_key="k", fingerprint=b"f")
    await ask(subject, question)
    assert SECRET.encode() not in (await subject.store.get("idempotency:acme:k") or b"")
    subject.events.clear()
    again = await ask(subject, question)
    assert again.replayed
    assert again.text == tokens(subject) == f"You are {SECRET}. See it [1]."
    assert again.text[again.citations[0].span.start :].startswith("[1]")
    plain = await ask(subject, replace(question, restore_pii=False), asker=ASKER)
    assert REDACTED in plain.text
    assert SECRET not in plain.text


def failing(place: str) -> Callable[[str], Awaitable[None]]:
    """Lets every step pass but this one."""

    async def hook(reached: str) -> None:
        if reached == place:
            raise BackendUnavailable("away")

    return hook


async def test_where_values_cannot_be_had_the_answer_says_so() -> None:
    """Placeholders stay, the degradation is told, and recorded."""
    subject = gateway(*SAYS)
    subject.guard.hook = failing("restore_text")
    answer = await ask(subject)
    assert answer.text == tokens(subject) == f"You are {REDACTED}. See it [1]."
    assert answer.degradations == (Degradation("not_restored", "VAULT_UNAVAILABLE"),)
    (record,) = subject.bus.interactions()
    assert [one.rung for one in record.degradations] == ["not_restored"]


@pytest.mark.parametrize("value", ['"}, {"x": "', "back\\slash\nline", SECRET])
async def test_a_value_cannot_break_out_of_a_json_answer(value: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """It is put back inside its string, whatever it holds."""

    async def restore(self: FakeGuard, texts: list[str], *, context: CheckContext, timeout_s: float) -> list[str]:
        return [text.replace(REDACTED, value) for text in texts]

    monkeypatch.setattr(FakeGuard, "restore_text", restore)
    subject = gateway(json.dumps({"who": f"It is {REDACTED}."}))
    answer = await ask(subject, replace(ASKED, output_schema=SCHEMA))
    assert json.loads(answer.text) == {"who": f"It is {value}."}
    assert answer.text == tokens(subject)


async def test_a_value_that_breaks_the_schema_stays_away(monkeypatch: pytest.MonkeyPatch) -> None:
    """The answer keeps its placeholder and says why."""

    async def restore(self: FakeGuard, texts: list[str], *, context: CheckContext, timeout_s: float) -> list[str]:
        return [text.replace(REDACTED, "x" * 99) for text in texts]

    monkeypatch.setattr(FakeGuard, "restore_text", restore)
    subject = gateway(json.dumps({"who": REDACTED}))
    answer = await ask(subject, replace(ASKED, output_schema=SCHEMA))
    assert json.loads(answer.text) == {"who": REDACTED}
    assert answer.degradations == (Degradation("not_restored", "RESTORING_BROKE_SCHEMA"),)


async def test_completed_is_the_restored_answer() -> None:
    """The last event of a stream holds what its tokens said."""
    subject = gateway(*SAYS)
    answer = await ask(subject)
    assert [event.answer for event in subject.events if isinstance(event, Completed)] == [answer]


def test_repeats_are_told_apart_without_regard_to_restoring() -> None:
    """The wish concerns how an answer is told: the question stays the same, over gRPC and HTTP."""
    message = pb.Question(text="x", idempotency_key="k")
    wished = pb.Question(text="x", idempotency_key="k", restore_pii=True)
    plain, restoring = (convert.question_of(one, channel=Channel.GRPC) for one in (message, wished))
    assert plain.fingerprint == restoring.fingerprint
    assert (plain.restore_pii, restoring.restore_pii) == (False, True)
    document: dict[str, Any] = {"messages": [{"role": "user", "content": "x"}]}
    documents = [document, {**document, "binnacle": {"restore_pii": True}}, {**document, "binnacle": {"top_k": 2}}]
    prints = [openai_convert.question_of(one, idempotency_key="k").fingerprint for one in documents]
    assert prints[0] == prints[1] != prints[2]
