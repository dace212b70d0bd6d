"""`binnacle ask` prints what the stream says, once."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from binnacle.gateway.v1 import gateway_service_pb2 as gateway
from binnacle_client import convert
from binnacle_client.answers import Answer, AnswerEvent, AnswerRetracted, AnswerText, QuestionOptions
from binnacle_client.cli import asking
from binnacle_client.connection import Connection

STOPPED = "This was stopped."


def _answer(text: str, outcome: str) -> Answer:
    return Answer("r1", text, outcome, "stop", (), 1, 2, 0, "default", "default", (), (), {})


class _Streaming:
    def __init__(self, events: tuple[AnswerEvent, ...]) -> None:
        self._events = events
        self.options: list[QuestionOptions] = []

    async def stream(self, _text: str, options: QuestionOptions, **_bounds: Any) -> AsyncIterator[AnswerEvent]:
        self.options.append(options)
        for event in self._events:
            yield event


@pytest.mark.parametrize(
    "events",
    [
        (AnswerText(STOPPED), _answer(STOPPED, "blocked")),
        (AnswerText("A secret"), AnswerRetracted("BLOCKED_OUTPUT", STOPPED), _answer(STOPPED, "blocked")),
    ],
)
def test_a_block_is_told_once(events: tuple[AnswerEvent, ...], monkeypatch: pytest.MonkeyPatch) -> None:
    """What stands in an answer's place comes through the stream, and is not repeated at the end."""

    @asynccontextmanager
    async def opened(_connection: Connection) -> AsyncIterator[_Streaming]:
        yield _Streaming(events)

    monkeypatch.setenv("BINNACLE_API_KEY", "bk_test")
    monkeypatch.setattr(asking, "open_client", opened)
    result = CliRunner().invoke(asking.ask, ["What?"])
    assert result.exit_code == 0, result.output
    assert result.output.count(STOPPED) == 1


def test_a_schema_and_perplexity_are_asked_for(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """The schema's file goes along as it stands, and how sure the model was is told at the end."""
    streaming = _Streaming((AnswerText("{}"), replace(_answer("{}", "answered"), mean_logprob=-0.5)))

    @asynccontextmanager
    async def opened(_connection: Connection) -> AsyncIterator[_Streaming]:
        yield streaming

    monkeypatch.setenv("BINNACLE_API_KEY", "bk_test")
    monkeypatch.setattr(asking, "open_client", opened)
    schema = tmp_path / "schema.json"
    schema.write_text('{"type": "object"}', "utf-8")
    result = CliRunner().invoke(asking.ask, ["What?", "--schema", str(schema), "--logprobs"])
    assert result.exit_code == 0, result.output
    assert "perplexity 1.65" in result.output
    assert streaming.options == [QuestionOptions(output_schema='{"type": "object"}', logprobs=True)]


def test_options_and_the_mean_probability_travel() -> None:
    """The question carries schema and wish; an absent mean stays absent."""
    question = convert.question_to_proto("What?", QuestionOptions(output_schema="{}", logprobs=True))
    assert (question.output_schema, question.logprobs) == ("{}", True)
    assert convert.answer_from_proto(gateway.Answer(mean_logprob=-0.5)).mean_logprob == -0.5
    assert convert.answer_from_proto(gateway.Answer()).mean_logprob is None
