"""Reads the frames of TGI's generate routes into the engine port's events. Used by `engine.py`.

https://huggingface.github.io/text-generation-inference: a frame a token, the last one with text and details.
"""

from collections.abc import AsyncGenerator

import msgspec

from servicekit.adapters.engine_failures import stream_cut
from servicekit.adapters.engine_stream import drain
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
    frames: AsyncGenerator[bytes, None], request: EngineRequest, address: str
) -> AsyncGenerator[EngineEvent, None]:
    """A token event for every token, empty where it has no text or its text is held back, then the end.

    Raises:
        BinnacleError: the stream says that it failed, or ends before the answer did.
        msgspec.DecodeError: a frame is nonsense.
    """
    stops = StopTexts(request.sampling.stop)
    details: _Details | None = None
    async for data in frames:
        frame = _read_frame(data)
        if frame.error is not None:
            raise of_frame(address, frame.error, frame.error_type)
        if frame.token is None:
            continue
        details = frame.details or details
        text = "" if frame.token.special else stops.feed(frame.token.text)
        yield TokenEvent(text, 1, _logprobs(frame.token) if request.want_logprobs else ())
        if details is not None:
            break
    if details is None:
        raise stream_cut(address)
    await drain(frames)
    if rest := stops.rest():
        yield TokenEvent(rest, 0)
    usage = Usage(details.input_length, details.generated_tokens)
    yield GenerationEnd(_REASONS.get(details.finish_reason, FinishReason.STOP), usage)


def _logprobs(token: _Token) -> tuple[TokenLogprob, ...]:
    return () if token.logprob is None else (TokenLogprob(token.text, min(0.0, token.logprob)),)
