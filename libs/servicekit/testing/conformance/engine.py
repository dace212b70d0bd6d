"""What every engine must do; inherited by the contract test of each adapter, which supplies it.

`engine_remote.py` adds what those must do that reach a server, `engine_faults.py` how they fail.
"""

import asyncio
import json
from contextlib import aclosing
from dataclasses import replace

import pytest
from jsonschema import Draft202012Validator

from servicekit.domain.chunk import Chunk, ScoredChunk
from servicekit.domain.generation import EngineEvent, FinishReason, GenerationEnd, TokenEvent
from servicekit.domain.prompt import ContextChunk, EngineRequest, Message, Role, Sampling
from servicekit.errors import InvalidRequest
from servicekit.ports.engine import Engine

PATIENCE_S = 30.0
SCHEMA = json.dumps({"type": "object", "properties": {"open": {"type": "boolean"}}, "required": ["open"]})
_LIMIT_TOKENS = 3
_HARBOUR = (
    "The harbour opens at six in the morning. Ships report to the harbour master by radio before they enter. "
    "The fee for a berth is paid at the office. The harbour closes at ten in the evening."
)


GREEDY = Sampling(max_output_tokens=64, temperature=0)


def harbour_request(
    sampling: Sampling | None = None, *, question: str = "When does the harbour open?"
) -> EngineRequest:
    """A question with one chunk that answers it."""
    chunk = Chunk("c1", "d1", 1, "0" * 64, _HARBOUR, title="Harbour rules", end=len(_HARBOUR))
    return EngineRequest(
        messages=(
            Message(Role.SYSTEM, f"Answer from the documents.\n[1] {_HARBOUR}"),
            Message(Role.USER, question),
        ),
        question=question,
        context=(ContextChunk(1, ScoredChunk(chunk, 1, 1.0)),),
        sampling=sampling or GREEDY,
    )


async def collect(engine: Engine, request: EngineRequest) -> list[EngineEvent]:
    """Every event of one generation, within a bound."""
    async with asyncio.timeout(PATIENCE_S), aclosing(engine.generate(request)) as events:
        return [event async for event in events]


def text_of(events: list[EngineEvent]) -> str:
    """The answer."""
    return "".join(event.text for event in events if isinstance(event, TokenEvent))


def tokens_of(events: list[EngineEvent]) -> int:
    """How many tokens the events counted."""
    return sum(event.token_count for event in events if isinstance(event, TokenEvent))


def end_of(events: list[EngineEvent]) -> GenerationEnd:
    """The last event."""
    end = events[-1]
    assert isinstance(end, GenerationEnd)
    return end


class EngineConformance:
    """Subclasses provide the fixture `engine`, whose answers have several tokens."""

    async def test_info_names_the_model_and_its_window(self, engine: Engine) -> None:
        """An engine says what it serves and how much fits."""
        info = await engine.info()
        assert info.model
        assert 0 < info.max_input_tokens <= info.max_total_tokens

    async def test_tokens_come_first_then_one_end(self, engine: Engine) -> None:
        """The end is the last event and the only one of its kind, with usage."""
        events = await collect(engine, harbour_request())
        assert text_of(events).strip()
        assert [isinstance(event, GenerationEnd) for event in events].count(True) == 1
        end = end_of(events)
        assert end.finish_reason in {FinishReason.STOP, FinishReason.LENGTH}
        assert end.usage.input_tokens > 0
        assert end.usage.output_tokens > 0

    async def test_events_count_no_token_twice(self, engine: Engine) -> None:
        """What the events count is at most what the end tells; a server may send several tokens as one."""
        for stop in ((), ("source",), ("no such text",)):
            events = await collect(engine, harbour_request(replace(GREEDY, stop=stop)))
            end = end_of(events)
            assert end.usage.estimated or tokens_of(events) <= end.usage.output_tokens

    async def test_output_limit_is_kept(self, engine: Engine) -> None:
        """A limit on the output ends the answer there, and says so."""
        end = end_of(await collect(engine, harbour_request(replace(GREEDY, max_output_tokens=_LIMIT_TOKENS))))
        assert end.finish_reason is FinishReason.LENGTH
        assert end.usage.output_tokens <= _LIMIT_TOKENS

    async def test_stop_text_ends_the_answer_and_is_not_in_it(self, engine: Engine) -> None:
        """A stop text cuts the answer before itself."""
        whole = text_of(await collect(engine, harbour_request()))
        mark = whole[8:14]
        cut = await collect(engine, harbour_request(replace(GREEDY, stop=(mark,))))
        assert text_of(cut) == whole[: whole.index(mark)]
        assert end_of(cut).finish_reason is FinishReason.STOP

    async def test_leaving_early_frees_the_engine(self, engine: Engine) -> None:
        """A generation closed after its first event leaves the engine ready for the next."""
        async with aclosing(engine.generate(harbour_request())) as events:
            assert isinstance(await anext(events), TokenEvent)
        assert text_of(await collect(engine, harbour_request()))

    async def test_generations_do_not_mix(self, engine: Engine) -> None:
        """Concurrent generations each get their own whole answer."""
        alone = text_of(await collect(engine, harbour_request()))
        many = await asyncio.gather(*(collect(engine, harbour_request()) for _ in range(20)))
        assert {text_of(events) for events in many} == {alone}

    async def test_longer_texts_count_more_tokens(self, engine: Engine) -> None:
        """Counting grows with the text, and nothing has none."""
        assert (await engine.count_tokens("")).tokens == 0
        short, long = await engine.count_tokens("a berth"), await engine.count_tokens("a berth " * 50)
        assert 0 < short.tokens < long.tokens

    async def test_address_is_the_url(self, engine: Engine) -> None:
        """The address can be logged: a URL with a scheme and no credentials."""
        assert "://" in engine.address
        assert "@" not in engine.address

    async def test_a_conversation_counts_more_than_its_texts_do(self, engine: Engine) -> None:
        """Counting messages counts their format too, and grows with them."""
        one = (Message(Role.USER, "When does the harbour open?"),)
        two = (Message(Role.SYSTEM, _HARBOUR), *one)
        shorter, longer = await engine.count_messages(one), await engine.count_messages(two)
        assert (await engine.count_tokens(one[0].content)).tokens <= shorter.tokens < longer.tokens

    async def test_load_is_told_or_not(self, engine: Engine) -> None:
        """Numbers of requests, or nothing."""
        load = await engine.load()
        assert load is None or min(load.queued_requests, load.running_requests) >= 0

    async def test_schema_is_kept_or_refused(self, engine: Engine) -> None:
        """An answer under a schema satisfies it; an engine that has no way to it says so by the field."""
        request = replace(harbour_request(replace(GREEDY, max_output_tokens=256)), output_schema=SCHEMA)
        (outcome,) = await asyncio.gather(collect(engine, request), return_exceptions=True)
        if isinstance(outcome, InvalidRequest):
            assert outcome.field == "output_schema"
            return
        assert not isinstance(outcome, BaseException), outcome
        Draft202012Validator(json.loads(SCHEMA)).validate(json.loads(text_of(outcome)))

    @pytest.mark.parametrize("schema", ["{", "[]", '"text"'])
    async def test_schema_that_is_none_is_refused(self, engine: Engine, schema: str) -> None:
        """What is no JSON object is refused before anything is sent, by the field."""
        with pytest.raises(InvalidRequest) as raised:
            await collect(engine, replace(harbour_request(), output_schema=schema))
        assert raised.value.field == "output_schema"

    async def test_probabilities_are_those_of_the_tokens(self, engine: Engine) -> None:
        """Where they are told, each token's logarithm is at most 0 and their texts are the answer's."""
        events = await collect(engine, replace(harbour_request(), want_logprobs=True))
        told = [one for event in events if isinstance(event, TokenEvent) for one in event.logprobs]
        assert all(one.logprob <= 0 for one in told)
        assert not told or "".join(one.text for one in told).startswith(text_of(events))

    async def test_probabilities_are_told_only_when_asked_for(self, engine: Engine) -> None:
        """Nobody pays for what was not asked for."""
        events = await collect(engine, harbour_request())
        assert not any(event.logprobs for event in events if isinstance(event, TokenEvent))
