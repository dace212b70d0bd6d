"""The extractive engine keeps the contract of its port, and answers only with what the chunks say."""

import re
from collections.abc import AsyncIterator
from dataclasses import replace

import pytest

from servicekit.adapters.extractive.engine import REFUSAL
from servicekit.adapters.registry import open_engine
from servicekit.errors import InvalidRequest
from servicekit.ports.engine import Engine
from servicekit.testing.conformance.engine import (
    EngineConformance,
    collect,
    end_of,
    harbour_request,
    text_of,
)


@pytest.fixture
async def engine() -> AsyncIterator[Engine]:
    """An extractive engine."""
    async with open_engine("extractive://") as opened:
        yield opened


class TestExtractiveEngine(EngineConformance):
    """All of the port's contract."""


async def test_answer_is_made_of_cited_sentences_of_the_chunks(engine: Engine) -> None:
    """Without its markers the answer is text of the chunk."""
    request = harbour_request()
    answer = text_of(await collect(engine, request))
    assert "The harbour opens at six in the morning [1]." in answer
    for sentence in re.split(r"(?<=\.) ", answer):
        assert re.sub(r" \[1\]", "", sentence) in request.context[0].scored.chunk.text


async def test_question_beside_the_chunks_is_refused(engine: Engine) -> None:
    """Where no chunk says anything of the question, the answer is an honest refusal, marked as one."""
    events = await collect(engine, harbour_request(question="Which medicine helps against seasickness?"))
    assert text_of(events) == REFUSAL
    assert end_of(events).refused


@pytest.mark.parametrize("question", ["?", "what is it", "…"])
async def test_question_without_content_is_refused(engine: Engine, question: str) -> None:
    """A question that names nothing finds nothing."""
    assert end_of(await collect(engine, harbour_request(question=question))).refused


async def test_address_with_a_host_is_refused() -> None:
    """There is nothing to connect to."""
    with pytest.raises(InvalidRequest):
        async with open_engine("extractive://host:1"):
            pass


async def test_adapter_is_refused(engine: Engine) -> None:
    """There is no model to adapt."""
    with pytest.raises(InvalidRequest) as raised:
        await collect(engine, replace(harbour_request(), adapter="maritime"))
    assert raised.value.field == "adapter"
