"""An engine behind any OpenAI-compatible server (vLLM, SGLang, llama.cpp, Ollama, vendors), by `openai`.

Opened by the registry for
`openai://host[:port]/v1?model=NAME[&window=8192][&limit_field=max_completion_tokens][&tls=true]`.
"""

import time
from collections.abc import AsyncGenerator, AsyncIterator, Sequence
from contextlib import aclosing, asynccontextmanager
from typing import Any

import httpx2
import openai
from openai.types.chat import ChatCompletionChunk

from servicekit.adapters.engine_failures import MALFORMED, stream_cut
from servicekit.adapters.engine_load import read_load
from servicekit.adapters.engine_tokens import estimate_messages
from servicekit.adapters.engine_url import EngineUrl, parse_engine_url
from servicekit.adapters.openai.failures import to_error
from servicekit.adapters.stop_texts import StopTexts
from servicekit.domain.generation import (
    EngineEvent,
    EngineLoad,
    FinishReason,
    GenerationEnd,
    ModelInfo,
    TokenCount,
    TokenEvent,
    Usage,
)
from servicekit.domain.prompt import EngineRequest, Message, Sampling
from servicekit.domain.token_estimate import estimate_tokens
from servicekit.errors import InvalidRequest, NotReady

_CONNECT_S = 3.0
_CONTROL_S = 5.0
_DEFAULT_WINDOW_TOKENS = 8_192
_OPTIONS = frozenset({"model", "window", "limit_field"})
_LIMIT_FIELDS = frozenset({"max_tokens", "max_completion_tokens"})
_REASONS = {
    "stop": FinishReason.STOP,
    "length": FinishReason.LENGTH,
    "content_filter": FinishReason.CONTENT_FILTER,
}
_CLIENT_ERRORS = (openai.OpenAIError, httpx2.HTTPError, *MALFORMED)
_NO_ROUTE = frozenset({401, 403, 404, 405, 501})
_NO_ROUTE_TTL_S = 600.0
# The package insists on a key; a server of our own asks for none.
_NO_KEY = "none"


@asynccontextmanager
async def open_engine(url: str, *, api_key: str | None = None) -> AsyncIterator["OpenAIEngine"]:
    """Open the connection pool; nothing is sent yet. Without a port the URL is https."""
    parsed = parse_engine_url(url, known_options=_OPTIONS, tls_without_port=True)
    _check_options(parsed)
    # No retries: the generator decides about the next attempt, and counts each one.
    async with openai.AsyncOpenAI(
        base_url=parsed.base_url,
        api_key=api_key or _NO_KEY,
        max_retries=0,
        timeout=httpx2.Timeout(None, connect=_CONNECT_S),
    ) as client:
        yield OpenAIEngine(parsed, client)


class OpenAIEngine:
    """One server. The chat template is its own; tokens are estimated, since its API counts none ahead."""

    def __init__(self, url: EngineUrl, client: openai.AsyncOpenAI) -> None:
        self._url = url
        self._client = client
        self._model = url.options.get("model", "")
        self._limit_field = url.options.get("limit_field", "max_tokens")
        # Routes beside the API stand beside its `/v1`.
        self._root = url.base_url.removesuffix("/v1")
        self._ask_load_at_s = 0.0

    @property
    def address(self) -> str:
        """The URL it was opened by."""
        return self._url.address

    async def info(self) -> ModelInfo:
        """The model of the URL, or the first the server lists; its window from the URL, else as vLLM tells it."""
        try:
            models = (await self._client.models.list(timeout=_CONTROL_S)).data
            listed = next((m for m in models if m.id == self._model or not self._model), None)
            reported = (listed.model_extra or {}).get("max_model_len") if listed else None
            window = int(self._url.options.get("window") or reported or _DEFAULT_WINDOW_TOKENS)
        except _CLIENT_ERRORS as error:
            raise to_error(self.address, error) from error
        if listed is None:
            raise NotReady(f"engine {self.address} does not list model {self._model!r}", reason="MODEL_NOT_SERVED")
        return ModelInfo(listed.id, "", max_input_tokens=window - 1, max_total_tokens=window)

    async def generate(self, request: EngineRequest) -> AsyncGenerator[EngineEvent, None]:
        """Stream the answer; see the port."""
        model = self._model or (await self.info()).model
        try:
            chunks = await self._client.chat.completions.create(  # type: ignore[call-overload]  # each role has its own type there
                model=model,
                messages=[{"role": m.role.value, "content": m.content} for m in request.messages],
                stream=True,
                stream_options={"include_usage": True},
                **self._settings(request.sampling),
            )
            async with chunks, aclosing(_events(chunks, request, self.address)) as events:
                async for event in events:
                    yield event
        except _CLIENT_ERRORS as error:
            raise to_error(self.address, error) from error

    async def count_tokens(self, text: str) -> TokenCount:
        """An estimate."""
        return TokenCount(estimate_tokens(text), estimated=True)

    async def count_messages(self, messages: Sequence[Message]) -> TokenCount:
        """An estimate."""
        return estimate_messages(messages)

    async def load(self) -> EngineLoad | None:
        """What the server's `/metrics` says; one that has none is asked again after ten minutes."""
        if time.monotonic() < self._ask_load_at_s:
            return None
        try:
            page = await self._client.get(self._root + "/metrics", cast_to=str, options={"timeout": _CONTROL_S})
            load = read_load(page)
        except openai.APIStatusError as error:
            if error.status_code not in _NO_ROUTE:
                raise to_error(self.address, error) from error
            load = None
        except _CLIENT_ERRORS as error:
            raise to_error(self.address, error) from error
        if load is None:
            self._ask_load_at_s = time.monotonic() + _NO_ROUTE_TTL_S
        return load

    def _settings(self, sampling: Sampling) -> dict[str, Any]:
        settings = {
            self._limit_field: sampling.max_output_tokens,
            "temperature": sampling.temperature,
            "top_p": sampling.top_p,
            "stop": list(sampling.stop) or None,
            "seed": sampling.seed,
            "frequency_penalty": sampling.frequency_penalty,
            "presence_penalty": sampling.presence_penalty,
            # Not OpenAI's, but every open server's.
            "extra_body": None if sampling.top_k is None else {"top_k": sampling.top_k},
        }
        return {name: value for name, value in settings.items() if value is not None}


async def _events(
    chunks: AsyncIterator[ChatCompletionChunk], request: EngineRequest, address: str
) -> AsyncGenerator[EngineEvent, None]:
    reason: str | None = None
    usage: Usage | None = None
    stops = StopTexts(request.sampling.stop)
    answer = ""
    async for chunk in chunks:
        if chunk.usage is not None:
            cached = chunk.usage.prompt_tokens_details and chunk.usage.prompt_tokens_details.cached_tokens
            usage = Usage(chunk.usage.prompt_tokens, chunk.usage.completion_tokens, cached or 0)
        for choice in chunk.choices:
            reason = choice.finish_reason or reason
            if text := stops.feed(choice.delta.content or ""):
                answer += text
                yield TokenEvent(text)
    if reason is None:
        raise stream_cut(address)
    if rest := stops.rest():
        answer += rest
        yield TokenEvent(rest)
    yield GenerationEnd(_REASONS.get(reason, FinishReason.STOP), usage or _estimated(request, answer))


def _estimated(request: EngineRequest, text: str) -> Usage:
    """The usage where the server reports none."""
    sent = sum(estimate_tokens(message.content) for message in request.messages)
    return Usage(sent, estimate_tokens(text), estimated=True)


def _check_options(url: EngineUrl) -> None:
    window = url.options.get("window", "1")
    if not window.isdigit() or int(window) < 1:
        raise InvalidRequest(f"window must be a number of tokens, got {window!r}", field="engine_url")
    limit_field = url.options.get("limit_field", "max_tokens")
    if limit_field not in _LIMIT_FIELDS:
        valid = " or ".join(sorted(_LIMIT_FIELDS))
        raise InvalidRequest(f"limit_field must be {valid}, got {limit_field!r}", field="engine_url")
