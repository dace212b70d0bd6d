"""Chunks of chat completions are read as each server writes them, every token counted once."""

import json
from collections.abc import AsyncGenerator
from typing import Any

import msgspec
import pytest

from servicekit.adapters.engine_chat import chat_events
from servicekit.adapters.openai.failures import of_frame
from servicekit.domain.generation import EngineEvent, FinishReason, GenerationEnd, TokenEvent, TokenLogprob, Usage
from servicekit.domain.prompt import EngineRequest, Message, Role, Sampling
from servicekit.errors import BackendUnavailable, InvalidRequest, Overloaded

_USAGE = {"choices": [], "usage": {"prompt_tokens": 9, "completion_tokens": 3}}


def chunk(delta: dict[str, Any], reason: str | None = None, **more: Any) -> dict[str, Any]:
    """A chunk of one choice."""
    return {"choices": [{"index": 0, "delta": delta, "finish_reason": reason}], **more}


async def read(*chunks: Any, stop: tuple[str, ...] = (), want_logprobs: bool = False) -> list[EngineEvent]:
    """The events of a stream of these chunks."""

    async def frames() -> AsyncGenerator[list[bytes], None]:
        for one in chunks:
            yield [one if isinstance(one, bytes) else json.dumps(one).encode()]

    request = EngineRequest(
        (Message(Role.USER, "When?"),), "When?", sampling=Sampling(stop=stop), want_logprobs=want_logprobs
    )
    events = chat_events(frames(), request, address="openai://h", to_error=lambda error: of_frame("openai://h", error))
    return [event async for event in events]


def counts(events: list[EngineEvent]) -> list[tuple[str, int]]:
    """Text and tokens of each event but the end."""
    return [(event.text, event.token_count) for event in events if isinstance(event, TokenEvent)]


async def test_vllm_opens_with_a_role_and_ends_with_an_empty_text() -> None:
    """The role is no token, the end-of-sequence token is one."""
    events = await read(
        chunk({"role": "assistant", "content": ""}),
        chunk({"content": "At"}),
        chunk({"content": " six"}),
        chunk({"content": ""}, "stop"),
        _USAGE,
        b"[DONE]",
    )
    assert counts(events) == [("At", 1), (" six", 1), ("", 1)]
    assert events[-1] == GenerationEnd(FinishReason.STOP, Usage(9, 3))


async def test_openai_ends_with_an_empty_delta() -> None:
    """Which is no token."""
    events = await read(
        chunk({"role": "assistant", "content": "", "refusal": None}),
        chunk({"content": "At"}),
        chunk({}, "length"),
        b"[DONE]",
    )
    assert counts(events) == [("At", 1)]
    assert isinstance(events[-1], GenerationEnd)
    assert events[-1].finish_reason is FinishReason.LENGTH
    assert events[-1].usage.estimated


async def test_running_usage_counts_chunks_of_several_tokens() -> None:
    """A server that tells its usage with every chunk is believed."""
    events = await read(
        chunk({"role": "assistant", "content": ""}, usage={"prompt_tokens": 9, "completion_tokens": 0}),
        chunk({"content": "At six"}, usage={"prompt_tokens": 9, "completion_tokens": 2}),
        chunk({"content": "."}, "stop", usage={"prompt_tokens": 9, "completion_tokens": 3}),
        {"choices": [], "usage": {"prompt_tokens": 9, "completion_tokens": 3}},
    )
    assert counts(events) == [("At six", 2), (".", 1)]
    assert events[-1] == GenerationEnd(FinishReason.STOP, Usage(9, 3))


async def test_probabilities_count_chunks_of_several_tokens() -> None:
    """Each token has one; more than 0 it never is, and a missing one is left out."""
    told = {"content": [{"token": "At", "logprob": -0.5}, {"token": " six", "logprob": 1e-9}]}
    more = {"content": [{"token": ".", "logprob": None}]}
    events = await read(
        {"choices": [{"index": 0, "delta": {"content": "At six"}, "logprobs": told}]},
        {"choices": [{"index": 0, "delta": {"content": "."}, "logprobs": more, "finish_reason": "stop"}]},
        want_logprobs=True,
    )
    assert counts(events) == [("At six", 2), (".", 1)]
    assert isinstance(events[0], TokenEvent)
    assert events[0].logprobs == (TokenLogprob("At", -0.5), TokenLogprob(" six", 0.0))


async def test_held_back_text_is_counted_when_it_comes() -> None:
    """A token that may begin a stop text counts at once; its text follows, or never does."""
    events = await read(chunk({"content": "a EN"}), chunk({"content": "D"}, "stop"), _USAGE, stop=("END",))
    assert counts(events) == [("a ", 1), ("", 1)]
    events = await read(chunk({"content": "a EN"}), chunk({"content": "X"}, "stop"), _USAGE, stop=("END",))
    assert counts(events) == [("a ", 1), ("ENX", 1)]


async def test_cached_tokens_are_told() -> None:
    """As OpenAI and vLLM tell them."""
    usage = {"prompt_tokens": 9, "completion_tokens": 1, "prompt_tokens_details": {"cached_tokens": 8}}
    events = await read(chunk({"content": "a"}, "stop"), {"choices": [], "usage": usage})
    assert events[-1] == GenerationEnd(FinishReason.STOP, Usage(9, 1, 8))


@pytest.mark.parametrize(
    ("frame", "error"),
    [
        ({"error": {"message": "Model is overloaded", "http_status_code": 422}}, Overloaded),
        ({"error": {"message": "slow down", "code": 429}}, Overloaded),
        ({"error": {"message": "Input validation error: too long"}}, InvalidRequest),
        ({"error": {"message": "bad", "type": "invalid_request_error"}}, InvalidRequest),
        ({"object": "error", "message": "bad", "type": "BadRequestError", "code": 400}, InvalidRequest),
        ({"error": {"message": "CUDA error"}}, BackendUnavailable),
        ({"error": "broken"}, BackendUnavailable),
    ],
)
async def test_errors_inside_a_stream_are_told_by_kind(frame: dict[str, Any], error: type[Exception]) -> None:
    """Whatever its shape, and after the tokens that came."""
    with pytest.raises(error):
        await read(chunk({"content": "a"}), frame)


@pytest.mark.parametrize("frame", [b"{", b"[]", b'{"choices":3}', b'{"choices":[{"delta":{"content":5}}]}', b"\xff"])
async def test_nonsense_is_told(frame: bytes) -> None:
    """JSON of another shape is as bad as none."""
    with pytest.raises(msgspec.DecodeError):
        await read(frame)


async def test_stream_without_its_end_is_cut() -> None:
    """Without a reason to finish, the answer is not whole, `[DONE]` or not."""
    for frames in ((chunk({"content": "a"}),), (chunk({"content": "a"}), b"[DONE]"), ()):
        with pytest.raises(BackendUnavailable) as raised:
            await read(*frames)
        assert raised.value.reason == "STREAM_CUT"
