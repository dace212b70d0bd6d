"""What the generator tries, in which order, and what it says when nothing helps; over contract servers."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, aclosing
from typing import Any

import pytest

from servicekit.domain.generation import FinishReason
from servicekit.domain.prompt import Sampling
from servicekit.errors import BackendTimeout, BinnacleError, ContextWindowExceeded, Overloaded
from servicekit.testing.tgi_server.server import TgiServer, open_tgi_server
from services.generator.generating import Answer, Generator, Question, Spent
from tests.integration.generator_pools import PRICES, eager_hedging, open_generator, question, url_of

_PATIENCE_S = 10.0
_SCHEMA = '{"type": "object", "properties": {"opens": {"type": "string"}}, "required": ["opens"]}'


@pytest.fixture
async def servers() -> AsyncIterator[tuple[TgiServer, TgiServer]]:
    """Two contract servers."""
    async with open_tgi_server() as first, open_tgi_server() as second:
        yield first, second


def _content(*engines: dict[str, Any], **fields: Any) -> dict[str, Any]:
    return {"extractive_fallback": False, "models": {"default": {"engines": list(engines), **PRICES, **fields}}}


async def _answer(generator: Generator, asked: Question | None = None, remaining_s: float = _PATIENCE_S) -> Answer:
    last = [event async for event in generator.answer(asked or question(), remaining_s=remaining_s)][-1]
    assert isinstance(last, Answer)
    return last


async def _refused(generator: Generator, asked: Question | None = None) -> tuple[BinnacleError, Spent | None]:
    spent = None
    try:
        async for event in generator.answer(asked or question(), remaining_s=_PATIENCE_S):
            spent = event if isinstance(event, Spent) else spent
    except BinnacleError as error:
        return error, spent
    raise AssertionError("it was answered")


async def test_slow_replica_is_overtaken(servers: tuple[TgiServer, TgiServer]) -> None:
    """Past the hedge's time a second replica is asked; the first token wins, the loser is cancelled and told."""
    slow, quick = servers
    slow.turn(first_token_s=5.0)
    engine = {"urls": [url_of(slow, "tgi"), url_of(quick, "tgi")], "hedging": True, "affinity": False}
    with eager_hedging(0.05):
        async with open_generator(_content(engine)) as generator:
            answers = [await _answer(generator) for _ in range(8)]
            await asyncio.wait_for(slow.idle(), _PATIENCE_S)
    hedged = [answer.attempts for answer in answers if len(answer.attempts) > 1]
    assert hedged
    for lost, won in hedged:
        assert (lost.finish_reason, lost.error_reason) == (FinishReason.CANCELLED, "HEDGE_LOST")
        assert (won.choice, won.finish_reason) == ("hedge", FinishReason.STOP)
        assert lost.usage.input_tokens == won.usage.input_tokens > 0
        assert lost.duration_s < 2
    assert slow.counts.cancelled == len(hedged)
    assert not any(answer.degradations for answer in answers)


async def test_every_engine_overloaded_is_the_shortest_wait(servers: tuple[TgiServer, TgiServer]) -> None:
    """Where all refuse for load the caller hears so, with the smallest retry delay that any of them gave."""
    first, second = servers
    for server in servers:
        server.turn(first_token_s=1.0)
    engines = [{"url": url_of(server, "tgi"), "concurrency": 1, "queue": 0} for server in (first, second)]
    async with open_generator(_content(*engines)) as generator, AsyncExitStack() as stack:
        holders = []
        for _ in range(2):
            events = await stack.enter_async_context(aclosing(generator.answer(question())))
            holders.append(asyncio.ensure_future(anext(events)))
        async with asyncio.timeout(_PATIENCE_S):
            while first.counts.open + second.counts.open < 2:
                await asyncio.sleep(0.005)
        error, spent = await _refused(generator)
        await asyncio.gather(*holders)
    assert isinstance(error, Overloaded)
    assert error.reason == "POOL_OVERLOADED"
    assert 0 < error.retry_after_s < 60
    assert spent is not None
    assert [attempt.error_reason for attempt in spent.attempts] == ["POOL_OVERLOADED"] * 2
    assert all(attempt.usage.input_tokens == attempt.cost.microusd == 0 for attempt in spent.attempts)


async def test_busy_and_dead_engines_are_told_as_busy(servers: tuple[TgiServer, TgiServer]) -> None:
    """An engine that only is busy makes trying again worth it, whatever became of the others."""
    servers[0].turn(fault="refuse")
    servers[1].turn(fault="drop")
    engines = [{"url": url_of(server, "tgi")} for server in servers]
    async with open_generator(_content(*engines)) as generator:
        error, _ = await _refused(generator)
    assert isinstance(error, Overloaded)


async def test_engines_of_an_alias_are_no_degradation(servers: tuple[TgiServer, TgiServer]) -> None:
    """The next engine of the same alias is as good as the first."""
    first, second = servers
    first.turn(fault="drop")
    engines = [{"url": url_of(first, "tgi")}, {"url": url_of(second, "openai"), "weight": 0}]
    async with open_generator(_content(*engines)) as generator:
        answer = await _answer(generator)
    assert [attempt.error_reason for attempt in answer.attempts] == ["STREAM_CUT", ""]
    assert {attempt.model_alias for attempt in answer.attempts} == {"default"}
    assert not answer.degradations


async def test_stand_ins_smaller_window_is_not_the_callers_fault(servers: tuple[TgiServer, TgiServer]) -> None:
    """A question that the asked model could take is told of the engine's failure, not of the stand-in's window."""
    first, second = servers
    first.turn(fault="drop")
    models = {
        "default": {"engine_url": url_of(first, "tgi"), "fallbacks": ["small"]},
        "small": {"engine_url": url_of(second, "tgi"), "window_tokens": 128},
    }
    async with open_generator({"extractive_fallback": False, "models": models}) as generator:
        error, spent = await _refused(generator, question(400))
        assert error.reason == "STREAM_CUT"
        assert spent is not None
        assert [attempt.error_reason for attempt in spent.attempts] == ["STREAM_CUT", "CONTEXT_WINDOW_EXCEEDED"]
        error, _ = await _refused(generator, question(400, model="small"))
        assert isinstance(error, ContextWindowExceeded)


async def test_schema_is_not_answered_with_sentences(servers: tuple[TgiServer, TgiServer]) -> None:
    """The extractive engine, which knows no schemas, is left out of the chain of a question with one."""
    servers[0].turn(fault="drop")
    content = _content({"url": url_of(servers[0], "tgi")}) | {"extractive_fallback": True}
    async with open_generator(content) as generator:
        assert (await _answer(generator)).degradations[0].rung == "extractive_answer"
        error, _ = await _refused(generator, question(output_schema=_SCHEMA))
        assert error.reason == "STREAM_CUT"


async def test_attempt_has_its_own_deadline(servers: tuple[TgiServer, TgiServer]) -> None:
    """An attempt that takes longer than its engine may ends there, though the caller would wait."""
    servers[0].turn(output_tokens=200, tokens_per_s=20)
    async with open_generator(_content({"url": url_of(servers[0], "tgi"), "attempt_s": 0.4})) as generator:
        error, spent = await _refused(generator)
    assert isinstance(error, BackendTimeout)
    assert error.reason == "ATTEMPT_TIMEOUT"
    assert error.metadata["resumable"] == "true"
    assert spent is not None
    assert 0.35 < spent.attempts[0].duration_s < 2


async def test_settings_in_force_are_told(servers: tuple[TgiServer, TgiServer]) -> None:
    """The answer carries the sampling that was sent, a pinned seed included; a repeat of a request gets the same."""
    fields = {"sampling": {"temperature": 0.5, "seed": "per_request", "stop": ["END"]}}
    async with open_generator(_content({"url": url_of(servers[0], "tgi")}, **fields)) as generator:
        first = await _answer(generator, question(request_id="r1", sampling=Sampling(temperature=0.9)))
        again = await _answer(generator, question(request_id="r1"))
        other = await _answer(generator, question(request_id="r2"))
    assert first.sampling.temperature == 0.9
    assert first.sampling.stop == ("END",)
    assert first.sampling.max_output_tokens == 512
    assert first.sampling.seed is not None
    assert first.sampling.seed == again.sampling.seed != other.sampling.seed
    assert servers[0].last_body["parameters"]["seed"] == other.sampling.seed


async def test_replicas_are_told_of_each_alias(servers: tuple[TgiServer, TgiServer]) -> None:
    """The generator's models list every replica with its state, one that is away too."""
    content = _content({"urls": [url_of(servers[0], "tgi"), "tgi://127.0.0.1:1"]})
    async with open_generator(content) as generator:
        (status,) = await generator._models.statuses(within_s=5)  # what ListModels asks
    assert status.available
    assert [replica.address for replica in status.replicas] == [url_of(servers[0], "tgi"), "tgi://127.0.0.1:1"]
    assert status.replicas[1].last_error_reason == "CONNECT"
    assert status.price.input_microusd == 1_000_000
