"""`binnacle ask` prints what the stream says, once."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest
from click.testing import CliRunner

from binnacle_client.answers import Answer, AnswerEvent, AnswerRetracted, AnswerText
from binnacle_client.cli import asking
from binnacle_client.connection import Connection

STOPPED = "This was stopped."


def _answer(text: str, outcome: str) -> Answer:
    return Answer("r1", text, outcome, "stop", (), 1, 2, 0, "default", "default", (), (), {})


class _Streaming:
    def __init__(self, events: tuple[AnswerEvent, ...]) -> None:
        self._events = events

    async def stream(self, *_args: Any, **_options: Any) -> AsyncIterator[AnswerEvent]:
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
