"""Protobuf ↔ streamed checks, with the bounds that the proto states. Pure; used by `server.py`."""

from collections.abc import AsyncIterator
from typing import assert_never

from binnacle.guardrail.v1 import guardrail_service_pb2 as rpc
from servicekit.errors import InvalidRequest
from services.guardrail.convert import (
    ACTIONS,
    MAX_TEXT_CHARS,
    MAX_TOTAL_CHARS,
    chunk_texts_from,
    context_from,
    verdict_to,
)
from services.guardrail.streaming.streamed import (
    EndedStream,
    FoundVerdicts,
    ReleasedText,
    StreamedText,
    StreamEvent,
    StreamStart,
)

MAX_TOKENS = 65_536


async def start_from(frames: AsyncIterator[rpc.CheckStreamRequest], *, tenant: str, request_id: str) -> StreamStart:
    """The first frame of a stream.

    Raises:
        InvalidRequest: it is none, or no start.
    """
    frame = await anext(frames, None)
    if frame is None or not frame.HasField("start"):
        raise InvalidRequest("the first frame of a stream must be its start", field="start")
    return StreamStart(
        context=context_from(frame.start.context, tenant=tenant, request_id=request_id),
        chunk_texts=chunk_texts_from(frame.start.chunk_texts),
        restore=frame.start.restore,
    )


async def texts_from(frames: AsyncIterator[rpc.CheckStreamRequest]) -> AsyncIterator[StreamedText]:
    """The texts of a stream behind its start, to the final one.

    Raises:
        InvalidRequest: a frame that is no text, or too much of it.
    """
    total = 0
    final = False
    async for frame in frames:
        if final:
            raise InvalidRequest("text.final was true before: nothing may follow it", field="text.final")
        text = _text_from(frame)
        total += len(text.text)
        if total > MAX_TOTAL_CHARS:
            raise InvalidRequest(
                f"the texts of a stream must have at most {MAX_TOTAL_CHARS} characters together, got {total}",
                field="text.text",
            )
        final = text.final
        yield text


def event_to(event: StreamEvent) -> rpc.CheckStreamResponse:
    """An event of a stream."""
    match event:
        case ReleasedText(text, source_chars, restored):
            released = rpc.ReleasedText(text=text, source_chars=source_chars, restored_text=restored)
            return rpc.CheckStreamResponse(released=released)
        case FoundVerdicts(verdicts):
            found = rpc.FoundVerdicts(verdicts=[verdict_to(verdict) for verdict in verdicts])
            return rpc.CheckStreamResponse(found=found)
        case EndedStream():
            return rpc.CheckStreamResponse(ended=_ended_to(event))
    assert_never(event)


def _text_from(frame: rpc.CheckStreamRequest) -> StreamedText:
    if not frame.HasField("text"):
        raise InvalidRequest("every frame of a stream behind its start must be a text", field="text")
    message = frame.text
    if len(message.text) > MAX_TEXT_CHARS:
        raise InvalidRequest(
            f"text.text must have at most {MAX_TEXT_CHARS} characters, got {len(message.text)}; send it in pieces",
            field="text.text",
        )
    if not 0 <= message.token_count <= MAX_TOKENS:
        raise InvalidRequest(
            f"text.token_count must be 0 to {MAX_TOKENS}, got {message.token_count}", field="text.token_count"
        )
    return StreamedText(message.text, message.token_count or 1, message.final)


def _ended_to(ended: EndedStream) -> rpc.EndedStream:
    return rpc.EndedStream(
        action=ACTIONS[ended.action],
        policy_version=ended.policy_version,
        groundedness=ended.groundedness,
        first_held_us=ended.first_held_us,
        first_held_tokens=ended.first_held_tokens,
        judging_us=ended.judging_us,
    )
