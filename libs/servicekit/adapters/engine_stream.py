"""Reads server-sent events from a response as they come. Used by the adapters of remote engines.

Of https://html.spec.whatwg.org/multipage/server-sent-events.html#parsing-an-event-stream what engines send: lines that
end in LF or CRLF, `data` fields of any number, comments (their keep-alive). Names, ids and retry times are skipped.
"""

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Sequence
from typing import Protocol

import httpx2
import msgspec

from servicekit.domain.generation import TokenEvent
from servicekit.errors import BinnacleError

_DRAIN_S = 0.25
_MAX_EVENT_BYTES = 4 * 1024 * 1024


class EventReader:
    """Turns bytes, cut anywhere, into the data of whole events; an event without its blank line is none."""

    def __init__(self) -> None:
        self._rest = b""
        self._data: list[bytes] = []
        self._data_bytes = 0

    def feed(self, data: bytes) -> list[bytes]:
        """The data of the events that these bytes complete.

        Raises:
            ValueError: an event of more than 4 MiB.
        """
        *lines, self._rest = (self._rest + data).split(b"\n")
        events = []
        for line in lines:
            if line.startswith(b"data:"):
                self._data.append(line[5:].removesuffix(b"\r").removeprefix(b" "))
                self._data_bytes += len(line)
            elif line in (b"", b"\r") and self._data:
                events.append(b"\n".join(self._data))
                self._data, self._data_bytes = [], 0
        if (held := len(self._rest) + self._data_bytes) > _MAX_EVENT_BYTES:
            raise ValueError(f"an event must be at most {_MAX_EVENT_BYTES} bytes, got {held} and no end")
        return events


async def read_events(response: httpx2.Response) -> AsyncGenerator[list[bytes], None]:
    """The data of each event, in order, those that came together in one list; ends with the response.

    Raises:
        httpx2.TransportError: the connection broke.
        ValueError: an event is larger than any engine's.
    """
    reader = EventReader()
    async for data in stream_of(response):
        if events := reader.feed(data):
            yield events


class TokenReader(Protocol):
    """Reads the format of one kind of stream."""

    @property
    def ended(self) -> bool:
        """The answer is whole: what follows does not matter."""
        ...

    def read(self, data: bytes) -> Sequence[TokenEvent]:
        """The tokens of an event; raises where it tells a failure or is nonsense."""
        ...


def read_tokens(events: Sequence[bytes], reader: TokenReader) -> tuple[TokenEvent | None, Exception | None]:
    """The tokens of events that came together, as one, and the error that followed them.

    A reader that lags is so freed of the cost that each token has on its further way, and catches up.
    """
    tokens: list[TokenEvent] = []
    failure: Exception | None = None
    try:
        for data in events:
            tokens += reader.read(data)
            if reader.ended:
                break
    except (BinnacleError, msgspec.DecodeError) as error:
        failure = error
    if len(tokens) <= 1:
        return tokens[0] if tokens else None, failure
    logprobs = tuple(one for token in tokens for one in token.logprobs)
    text = "".join(token.text for token in tokens)
    return TokenEvent(text, sum(token.token_count for token in tokens), logprobs), failure


async def drain(events: AsyncIterator[object]) -> None:
    """Read what follows the last event that matters, for a moment: read to its end, a connection can be used again."""
    try:
        async with asyncio.timeout(_DRAIN_S):
            async for _ in events:
                pass
    except (TimeoutError, httpx2.TransportError):
        pass


def stream_of(response: httpx2.Response) -> httpx2.AsyncByteStream:
    """The response's bytes, without the layers of httpx2 that each cost a token some microseconds."""
    assert isinstance(response.stream, httpx2.AsyncByteStream)
    return response.stream
