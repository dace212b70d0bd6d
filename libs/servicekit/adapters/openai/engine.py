"""An engine behind any OpenAI-compatible server (vLLM, SGLang, llama.cpp, Ollama, vendors), by `openai`.

Opened by the registry for `openai://host[:port]/v1?model=NAME[&window=8192][&limit_field=max_completion_tokens]`
`[&schema=json_schema|json_object|guided_json|tgi|none][&usage=end|continuous|none][&tokenizer=/path/tokenizer.json]`
`[&template=/path/tokenizer_config.json][&tls=true]`.

The package asks, and tells errors; chunks are read by `engine_chat`, since its own models cost a token 316 µs of CPU
where this costs 63.
"""

import asyncio
import time
from collections.abc import AsyncGenerator, AsyncIterator, Sequence
from contextlib import aclosing, asynccontextmanager
from functools import partial
from pathlib import Path
from typing import Any

import httpx2
import msgspec
import openai

from servicekit.adapters.chat_template import load_chat_template
from servicekit.adapters.engine_chat import chat_events
from servicekit.adapters.engine_failures import MALFORMED
from servicekit.adapters.engine_http import CONTROL_S, open_http, request_headers
from servicekit.adapters.engine_load import read_load
from servicekit.adapters.engine_stream import read_events
from servicekit.adapters.engine_tokens import LocalTokens, estimate_messages, open_local_tokens, with_format
from servicekit.adapters.engine_url import EngineUrl, parse_engine_url
from servicekit.adapters.openai.failures import of_frame, to_error
from servicekit.adapters.openai.settings import OPTIONS, Settings, read_settings
from servicekit.adapters.openai.token_routes import NO_ROUTE, NO_ROUTE_TTL_S, TokenRoutes
from servicekit.domain.generation import EngineEvent, EngineLoad, ModelInfo, TokenCount
from servicekit.domain.prompt import EngineRequest, Message
from servicekit.domain.token_estimate import estimate_tokens
from servicekit.errors import NotReady

_DEFAULT_WINDOW_TOKENS = 8_192
_CLIENT_ERRORS = (openai.OpenAIError, httpx2.HTTPError, msgspec.DecodeError, TimeoutError, *MALFORMED)
# The package insists on a key; a server of our own asks for none.
_NO_KEY = "none"


@asynccontextmanager
async def open_engine(url: str, *, api_key: str | None = None) -> AsyncIterator["OpenAIEngine"]:
    """Read the files that the URL names and open the connection pool; nothing is sent yet. Without a port it is https.

    Raises:
        InvalidRequest: the URL cannot be followed.
        NotReady: a template or tokenizer file cannot be read, or the template is bad, by name and line.
    """
    parsed = parse_engine_url(url, known_options=OPTIONS, tls_without_port=True)
    settings = read_settings(parsed.options)
    local = await _open_local(parsed)
    # No retries: the generator decides about the next attempt, and counts each one.
    async with (
        open_http(proxies=True) as http,
        openai.AsyncOpenAI(
            base_url=parsed.base_url, api_key=api_key or _NO_KEY, max_retries=0, http_client=http, timeout=http.timeout
        ) as client,
    ):
        yield OpenAIEngine(parsed, settings, client, local)


class OpenAIEngine:
    """One server; the chat format is its own."""

    def __init__(
        self, url: EngineUrl, settings: Settings, client: openai.AsyncOpenAI, local: LocalTokens | None
    ) -> None:
        self._url = url
        self._settings = settings
        self._client = client
        self._local = local
        self._model = settings.model
        # Routes beside the API stand beside its `/v1`.
        self._root = url.base_url.removesuffix("/v1")
        self._routes = TokenRoutes(self._post_beside)
        self._ask_load_at_s = 0.0

    @property
    def address(self) -> str:
        """The URL it was opened by."""
        return self._url.address

    async def info(self) -> ModelInfo:
        """The model of the URL, or the first the server lists; its window from the URL, else as vLLM tells it."""
        try:
            async with asyncio.timeout(CONTROL_S):
                models = (await self._client.models.list()).data
            named = self._settings.model
            listed = next((model for model in models if model.id == named or not named), None)
            reported = (listed.model_extra or {}).get("max_model_len") if listed else None
            window = self._settings.window or int(reported or _DEFAULT_WINDOW_TOKENS)
        except _CLIENT_ERRORS as error:
            raise to_error(self.address, error) from error
        if listed is None:
            raise NotReady(f"engine {self.address} does not list model {named!r}", reason="MODEL_NOT_SERVED")
        self._model = listed.id
        return ModelInfo(listed.id, "", max_input_tokens=window - 1, max_total_tokens=window)

    async def generate(self, request: EngineRequest) -> AsyncGenerator[EngineEvent, None]:
        """Stream the answer; see the port."""
        arguments = self._settings.arguments(request, model=await self._named())
        create = self._client.chat.completions.with_streaming_response.create
        try:
            async with (
                create(**arguments, extra_headers=request_headers(request.request_id)) as response,
                aclosing(read_events(response.http_response)) as frames,
                aclosing(self._read(frames, request)) as events,
            ):
                async for event in events:
                    yield event
        except _CLIENT_ERRORS as error:
            raise to_error(self.address, error) from error

    async def count_tokens(self, text: str) -> TokenCount:
        """By the file of the URL, else by a route of the server's, else an estimate."""
        if self._local is not None:
            return await self._local.count(text)
        if not text:
            return TokenCount(0, estimated=False)
        tokens = await self._routes.count_text(text, model=await self._named())
        return TokenCount(estimate_tokens(text), estimated=True) if tokens is None else TokenCount(tokens, False)

    async def count_messages(self, messages: Sequence[Message]) -> TokenCount:
        """By the files of the URL, else by a route of the server's, else an estimate."""
        if self._local is not None:
            return await self._local.count_messages(messages)
        model = await self._named()
        tokens = await self._routes.count_messages(messages, model=model)
        if tokens is not None:
            return TokenCount(tokens, estimated=False)
        texts = "\n".join(message.content for message in messages)
        tokens = await self._routes.count_text(texts, model=model)
        return estimate_messages(messages) if tokens is None else with_format(tokens, messages)

    async def load(self) -> EngineLoad | None:
        """What the server's `/metrics` says; one that has none is asked again after ten minutes."""
        if time.monotonic() < self._ask_load_at_s:
            return None
        page = await self._beside(self._client.get, "/metrics", cast_to=str)
        load = None if page is None else read_load(page)
        if load is None:
            self._ask_load_at_s = time.monotonic() + NO_ROUTE_TTL_S
        return load

    def _read(
        self, frames: AsyncGenerator[list[bytes], None], request: EngineRequest
    ) -> AsyncGenerator[EngineEvent, None]:
        return chat_events(frames, request, address=self.address, to_error=partial(of_frame, self.address))

    async def _named(self) -> str:
        """The model to ask for."""
        return self._model or (await self.info()).model

    async def _post_beside(self, path: str, body: dict[str, Any]) -> Any:
        return await self._beside(self._client.post, path, cast_to=object, body=body)

    async def _beside(self, call: Any, path: str, **arguments: Any) -> Any:
        """The answer of a route beside the API; None where the server has no such route."""
        try:
            async with asyncio.timeout(CONTROL_S):
                return await call(self._root + path, **arguments)
        except openai.APIStatusError as error:
            if error.status_code in NO_ROUTE:
                return None
            raise to_error(self.address, error) from error
        except _CLIENT_ERRORS as error:
            raise to_error(self.address, error) from error


async def _open_local(url: EngineUrl) -> LocalTokens | None:
    named = url.options.get("template")
    template = await asyncio.to_thread(load_chat_template, Path(named)) if named else None
    return await open_local_tokens(url.options, template=template)
