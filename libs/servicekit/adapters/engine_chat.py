"""Reads the stream of a chat completion, as every OpenAI-compatible server writes it, into the engine port's events.

Used by the OpenAI-compatible adapter and by TGI's where it takes the chat route.
"""

from collections.abc import AsyncGenerator, Callable
from typing import Any

import msgspec

from servicekit.adapters.engine_failures import stream_cut
from servicekit.adapters.engine_stream import drain, read_tokens
from servicekit.adapters.stop_texts import StopTexts
from servicekit.domain.generation import (
    EngineEvent,
    FinishReason,
    GenerationEnd,
    TokenEvent,
    TokenLogprob,
    Usage,
)
from servicekit.domain.prompt import EngineRequest
from servicekit.domain.token_estimate import estimate_tokens
from servicekit.errors import BinnacleError

_DONE = b"[DONE]"
_REASONS = {
    "stop": FinishReason.STOP,
    "length": FinishReason.LENGTH,
    "content_filter": FinishReason.CONTENT_FILTER,
}


class _Logprob(msgspec.Struct):
    token: str
    logprob: float | None = None


class _Logprobs(msgspec.Struct):
    content: list[_Logprob] | None = None


class _Delta(msgspec.Struct):
    content: str | None = None
    role: str | None = None


class _Choice(msgspec.Struct):
    delta: _Delta = msgspec.field(default_factory=_Delta)
    logprobs: _Logprobs | None = None
    finish_reason: str | None = None


class _CachedTokens(msgspec.Struct):
    cached_tokens: int | None = None


class _Usage(msgspec.Struct):
    prompt_tokens: int = 0
    completion_tokens: int = 0
    prompt_tokens_details: _CachedTokens | None = None


class _Chunk(msgspec.Struct):
    choices: list[_Choice] = []
    usage: _Usage | None = None
    error: Any = None
    # vLLM's way to say an error, before it took OpenAI's.
    object: str = ""
    message: str = ""
    type: str = ""
    code: Any = None


_read_chunk = msgspec.json.Decoder(_Chunk).decode


async def chat_events(
    frames: AsyncGenerator[list[bytes], None],
    request: EngineRequest,
    *,
    address: str,
    to_error: Callable[[Any], BinnacleError],
) -> AsyncGenerator[EngineEvent, None]:
    """A token event for all chunks with tokens that came together, empty where its text is held back; then the end.

    `to_error` makes the error of what a chunk holds as `error`.

    Raises:
        BinnacleError: the stream says that it failed, or ends before the answer did.
        msgspec.DecodeError: a chunk is nonsense.
    """
    reader = _ChatReader(request, to_error)
    async for together in frames:
        token, failure = read_tokens(together, reader)
        if token is not None:
            yield token
        if failure is not None:
            raise failure
        if reader.ended:
            break
    if reader.reason is None:
        raise stream_cut(address)
    await drain(frames)
    for last in reader.end():
        yield last


class _ChatReader:
    """Keeps count of one stream."""

    def __init__(self, request: EngineRequest, to_error: Callable[[Any], BinnacleError]) -> None:
        self._request = request
        self._to_error = to_error
        self._stops = StopTexts(request.sampling.stop)
        self._counted = 0
        self._usage: _Usage | None = None
        self._answer: list[str] = []
        self._begun = False
        self.reason: str | None = None
        self.ended = False

    def read(self, data: bytes) -> list[TokenEvent]:
        """A chunk's tokens; there is one choice, as one was asked for."""
        if data == _DONE:
            self.ended = True
            return []
        chunk = _read_chunk(data)
        if chunk.error or chunk.object == "error":
            told = chunk.error or {"message": chunk.message, "type": chunk.type, "code": chunk.code}
            raise self._to_error(told)
        self._usage = chunk.usage or self._usage
        events = []
        for choice in chunk.choices:
            self.reason = choice.finish_reason or self.reason
            logprobs = choice.logprobs.content or () if choice.logprobs else ()
            tokens = self._tokens(chunk, choice, len(logprobs))
            text = self._stops.feed(choice.delta.content or "")
            self._begun = True
            if text or tokens:
                self._counted += tokens
                self._answer.append(text)
                events.append(TokenEvent(text, tokens, self._told(logprobs)))
        return events

    def end(self) -> list[EngineEvent]:
        """What was held back, and the end."""
        events: list[EngineEvent] = []
        if rest := self._stops.rest():
            self._answer.append(rest)
            events.append(TokenEvent(rest, 0))
        events.append(GenerationEnd(_REASONS.get(self.reason or "", FinishReason.STOP), self._final_usage()))
        return events

    def _tokens(self, chunk: _Chunk, choice: _Choice, told: int) -> int:
        """How many tokens the chunk brings: by a running usage, by its probabilities, else one.

        Some servers open with a chunk that has a role and no text, and end with one whose delta is empty: no token.
        One that ends with an empty text tells of the end-of-sequence token.
        """
        if chunk.usage is not None and chunk.usage.completion_tokens:
            return max(0, chunk.usage.completion_tokens - self._counted)
        if told:
            return told
        if choice.delta.content:
            return 1
        opening = choice.delta.role is not None and not self._begun and choice.finish_reason is None
        return 0 if choice.delta.content is None or opening else 1

    def _told(self, logprobs: list[_Logprob] | tuple[()]) -> tuple[TokenLogprob, ...]:
        if not self._request.want_logprobs:
            return ()
        return tuple(TokenLogprob(one.token, min(0.0, one.logprob)) for one in logprobs if one.logprob is not None)

    def _final_usage(self) -> Usage:
        usage = self._usage
        if usage is None:
            sent = sum(estimate_tokens(message.content) for message in self._request.messages)
            return Usage(sent, max(self._counted, estimate_tokens("".join(self._answer))), estimated=True)
        details = usage.prompt_tokens_details
        return Usage(
            usage.prompt_tokens, usage.completion_tokens, (details.cached_tokens or 0) if details is not None else 0
        )
