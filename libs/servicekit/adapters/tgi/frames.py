"""Reads the frames of TGI's generate routes into the engine port's events. Used by `engine.py`.

https://huggingface.github.io/text-generation-inference: a frame a token, the last one with text and details.
"""

from collections.abc import AsyncGenerator

import msgspec

from servicekit.adapters.engine_failures import stream_cut
from servicekit.adapters.engine_stream import drain, read_tokens
from servicekit.adapters.stop_texts import StopTexts
from servicekit.adapters.tgi.failures import of_frame
from servicekit.domain.generation import (
    EngineEvent,
    FinishReason,
    GenerationEnd,
    TokenEvent,
    TokenLogprob,
    Usage,
)
from servicekit.domain.prompt import EngineRequest

_REASONS = {
    "length": FinishReason.LENGTH,
    "eos_token": FinishReason.STOP,
    "stop_sequence": FinishReason.STOP,
}


class _Token(msgspec.Struct):
    text: str
    logprob: float | None = None
    special: bool = False


class _Details(msgspec.Struct):
    finish_reason: str
    generated_tokens: int
    input_length: int


class _Frame(msgspec.Struct):
    token: _Token | None = None
    details: _Details | None = None
    error: str | None = None
    error_type: str = ""


_read_frame = msgspec.json.Decoder(_Frame).decode


async def generate_events(
    frames: AsyncGenerator[list[bytes], None], request: EngineRequest, address: str
) -> AsyncGenerator[EngineEvent, None]:
    """A token event for all tokens that came together, empty where they have no text or it is held back; then the end.

    Raises:
        BinnacleError: the stream says that it failed, or ends before the answer did.
        msgspec.DecodeError: a frame is nonsense.
    """
    reader = _GenerateReader(request, address)
    async for together in frames:
        token, failure = read_tokens(together, reader)
        if token is not None:
            yield token
        if failure is not None:
            raise failure
        if reader.ended:
            break
    details = reader.details
    if details is None:
        raise stream_cut(address)
    await drain(frames)
    if rest := reader.stops.rest():
        yield TokenEvent(rest, 0)
    usage = Usage(details.input_length, details.generated_tokens)
    yield GenerationEnd(_REASONS.get(details.finish_reason, FinishReason.STOP), usage)


class _GenerateReader:
    """Reads one stream; the frame with details is its last."""

    def __init__(self, request: EngineRequest, address: str) -> None:
        self._address = address
        self._want_logprobs = request.want_logprobs
        self.stops = StopTexts(request.sampling.stop)
        self.details: _Details | None = None

    @property
    def ended(self) -> bool:
        return self.details is not None

    def read(self, data: bytes) -> tuple[TokenEvent, ...]:
        frame = _read_frame(data)
        if frame.error is not None:
            raise of_frame(self._address, frame.error, frame.error_type)
        token = frame.token
        if token is None:
            return ()
        self.details = frame.details
        text = "" if token.special else self.stops.feed(token.text)
        return (TokenEvent(text, 1, _logprobs(token) if self._want_logprobs else ()),)


def _logprobs(token: _Token) -> tuple[TokenLogprob, ...]:
    return () if token.logprob is None else (TokenLogprob(token.text, min(0.0, token.logprob)),)
