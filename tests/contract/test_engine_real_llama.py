"""The OpenAI-compatible engine keeps its port's contract on a server that nobody here wrote: llama.cpp's."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import aclosing
from dataclasses import replace

import pytest

from servicekit.adapters.registry import open_engine
from servicekit.domain.generation import EngineLoad, TokenEvent
from servicekit.ports.engine import Engine
from servicekit.testing.conformance.engine import (
    GREEDY,
    PATIENCE_S,
    EngineConformance,
    collect,
    end_of,
    harbour_request,
    text_of,
    tokens_of,
)
from services.local.native_llama import MODEL, SLOTS, WINDOW_TOKENS

pytestmark = pytest.mark.servers


@pytest.fixture
async def engine(real_llama: str) -> AsyncIterator[Engine]:
    """An engine on llama.cpp's server."""
    async with open_engine(real_llama) as opened:
        yield opened


class TestLlamaEngine(EngineConformance):
    """What needs no dials of the contract server."""


async def test_model_and_window_are_its_own(engine: Engine) -> None:
    """The model is listed by the server, its window named by the URL."""
    info = await engine.info()
    assert (info.model, info.max_total_tokens) == (MODEL, WINDOW_TOKENS)


async def test_texts_are_counted_by_its_tokenizer(engine: Engine) -> None:
    """The vocabulary has a token for ` harbour`, and one for each letter of what it does not know."""
    counts = [await engine.count_tokens(text) for text in (" harbour", "xyz")]
    assert [(count.tokens, count.estimated) for count in counts] == [(1, False), (3, False)]


async def test_messages_count_what_a_generation_reads(engine: Engine) -> None:
    """Its template and tokenizer give ahead what its usage tells afterwards."""
    request = harbour_request()
    ahead = await engine.count_messages(request.messages)
    usage = end_of(await collect(engine, request)).usage
    assert (ahead.tokens, ahead.estimated, usage.estimated) == (usage.input_tokens, False, False)


async def test_a_prompt_asked_again_is_cached(engine: Engine) -> None:
    """The usage tells what its prefix cache served."""
    for _ in range(2):
        usage = end_of(await collect(engine, harbour_request())).usage
    assert 0 < usage.cached_tokens <= usage.input_tokens


async def test_load_counts_what_runs(engine: Engine) -> None:
    """By its metrics: nothing at rest."""
    assert await engine.load() == EngineLoad(0, 0)


async def test_every_token_has_its_probability(engine: Engine) -> None:
    """As many as were allowed, each with its logarithm."""
    request = replace(harbour_request(replace(GREEDY, max_output_tokens=16)), want_logprobs=True)
    events = await collect(engine, request)
    told = [one for event in events if isinstance(event, TokenEvent) for one in event.logprobs]
    assert len(told) == tokens_of(events) == end_of(events).usage.output_tokens
    assert any(one.logprob < 0 for one in told)


async def test_those_who_hang_up_leave_it_free(engine: Engine) -> None:
    """More than it works on at once are left after their first token; the next is answered, and nothing runs on."""
    long = harbour_request(replace(GREEDY, max_output_tokens=1_024))

    async def taste() -> None:
        async with aclosing(engine.generate(long)) as events:
            await anext(events)

    async with asyncio.timeout(PATIENCE_S):
        await asyncio.gather(*(taste() for _ in range(3 * SLOTS)))
        assert text_of(await collect(engine, harbour_request()))
        while await engine.load() != EngineLoad(0, 0):
            await asyncio.sleep(0.05)
