"""An engine on a Text Generation Inference node.

Opened by the registry for `tgi://host:port[?template=plain|chatml|engine|/path/tokenizer_config.json]`
`[&tokenizer=/path/tokenizer.json][&tls=true]`. `engine` leaves the format to the node's chat route; otherwise prompts
are written here and sent to `/generate_stream`. A tokenizer file spares the node the counting.

Streams are read by `engine_stream` over aiohttp rather than by huggingface_hub's client, which cost a token of 200
streams 242 to 267 µs of CPU, bare httpx2 alone 128, where this costs 63.
"""

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Sequence
from contextlib import aclosing, asynccontextmanager
from functools import partial
from typing import Any

import httpx2
import msgspec

from servicekit.adapters.engine_chat import chat_events
from servicekit.adapters.engine_failures import MALFORMED, nonsense
from servicekit.adapters.engine_http import CONTROL_S, open_http, request_headers
from servicekit.adapters.engine_load import read_load
from servicekit.adapters.engine_stream import read_events
from servicekit.adapters.engine_tokens import LocalTokens, open_local_tokens
from servicekit.adapters.engine_url import parse_engine_url
from servicekit.adapters.tgi.failures import of_answer, of_chat_frame, to_error
from servicekit.adapters.tgi.frames import generate_events
from servicekit.adapters.tgi.parameters import chat_body, generate_body
from servicekit.adapters.tgi.prompts import Prompts, open_prompts
from servicekit.domain.generation import EngineEvent, EngineLoad, ModelInfo, TokenCount
from servicekit.domain.prompt import EngineRequest, Message

_GENERATE, _CHAT = "/generate_stream", "/v1/chat/completions"
_OPTIONS = frozenset({"template", "tokenizer"})
_Events = AsyncGenerator[list[bytes], None]
_CLIENT_ERRORS = (httpx2.HTTPError, msgspec.DecodeError, TimeoutError, *MALFORMED)


class _Token(msgspec.Struct):
    start: int
    stop: int


class _ChatTokens(msgspec.Struct):
    tokenize_response: list[_Token]


_read_tokens = msgspec.json.Decoder(list[_Token] | _ChatTokens).decode


@asynccontextmanager
async def open_engine(url: str, *, api_key: str | None = None) -> AsyncIterator["TgiEngine"]:
    """Read the files that the URL names and open the connection pool; nothing is sent yet.

    Raises:
        InvalidRequest: the URL cannot be followed.
        NotReady: a template or tokenizer file cannot be read, or the template is bad, by name and line.
    """
    parsed = parse_engine_url(url, known_options=_OPTIONS)
    prompts = await open_prompts(parsed.options)
    local = await open_local_tokens(parsed.options, template=prompts.template)
    # A node stands in our own network: no proxy of the environment is asked.
    async with open_http(api_key=api_key) as http:
        yield TgiEngine(_Node(parsed.address, parsed.base_url, http), prompts, local)


class _Node:
    """The calls beside generation, each bounded by itself."""

    def __init__(self, address: str, base_url: str, http: httpx2.AsyncClient) -> None:
        self.address = address
        self._base_url = base_url
        self._http = http

    async def get_json(self, path: str) -> Any:
        """The JSON of a GET."""
        return self._json(await self._call("GET", path))

    async def get_text(self, path: str) -> str:
        """The text of a GET."""
        return (await self._call("GET", path)).text

    async def tokens_of(self, path: str, body: object) -> list[_Token]:
        """The tokens that a tokenize route gives; a prompt has thousands, so nothing else of them is read."""
        response = await self._call("POST", path, body)
        try:
            answer = _read_tokens(response.content)
        except msgspec.DecodeError as error:
            raise nonsense(self.address) from error
        return answer.tokenize_response if isinstance(answer, _ChatTokens) else answer

    @asynccontextmanager
    async def stream(self, path: str, body: object, request_id: str) -> AsyncIterator[_Events]:
        """The events of a stream; left early, its connection is closed."""
        headers = request_headers(request_id)
        async with self._http.stream("POST", f"{self._base_url}{path}", json=body, headers=headers) as response:
            if response.is_error:
                await response.aread()
                raise of_answer(self.address, response)
            async with aclosing(read_events(response)) as events:
                yield events

    async def _call(self, method: str, path: str, body: object | None = None) -> httpx2.Response:
        try:
            async with asyncio.timeout(CONTROL_S):
                response = await self._http.request(method, f"{self._base_url}{path}", json=body)
            response.raise_for_status()
        except _CLIENT_ERRORS as error:
            raise to_error(self.address, error) from error
        return response

    def _json(self, response: httpx2.Response) -> Any:
        try:
            return response.json()
        except MALFORMED as error:
            raise nonsense(self.address) from error


class TgiEngine:
    """One node."""

    def __init__(self, node: _Node, prompts: Prompts, local: LocalTokens | None) -> None:
        self._node = node
        self._prompts = prompts
        self._local = local
        self._adds_bos: bool | None = None

    @property
    def address(self) -> str:
        """The URL it was opened by."""
        return self._node.address

    async def info(self) -> ModelInfo:
        """What `/info` says; `max_input_length` is the older name of `max_input_tokens`."""
        body = await self._node.get_json("/info")
        try:
            return ModelInfo(
                model=str(body["model_id"]),
                revision=str(body.get("model_sha") or ""),
                max_input_tokens=int(body.get("max_input_tokens") or body["max_input_length"]),
                max_total_tokens=int(body["max_total_tokens"]),
                max_concurrent_requests=int(body.get("max_concurrent_requests") or 0),
            )
        except MALFORMED as error:
            raise nonsense(self.address) from error

    async def generate(self, request: EngineRequest) -> AsyncGenerator[EngineEvent, None]:
        """Stream the answer; see the port."""
        if self._prompts.by_engine:
            path, body = _CHAT, chat_body(request)
        else:
            path, body = _GENERATE, generate_body(await self._prompt(request.messages), request)
        try:
            async with (
                self._node.stream(path, body, request.request_id) as frames,
                aclosing(self._read(frames, request)) as events,
            ):
                async for event in events:
                    yield event
        except _CLIENT_ERRORS as error:
            raise to_error(self.address, error) from error

    async def count_tokens(self, text: str) -> TokenCount:
        """By the file, else by `/tokenize`; it adds a prompt's special tokens to any text, which cover no character."""
        if self._local is not None or not text:
            return await self._local.count(text) if self._local is not None else TokenCount(0, estimated=False)
        tokens = await self._node.tokens_of("/tokenize", {"inputs": text, "add_special_tokens": False})
        return TokenCount(sum(1 for token in tokens if token.start < token.stop), estimated=False)

    async def count_messages(self, messages: Sequence[Message]) -> TokenCount:
        """The tokens of what a generation sends, by the file where the format is known here, else by the node."""
        if self._prompts.by_engine:
            if self._local is not None:
                return await self._local.count_messages(messages)
            told = [{"role": message.role.value, "content": message.content} for message in messages]
            tokens = await self._node.tokens_of("/chat_tokenize", {"model": "tgi", "messages": told})
            return TokenCount(len(tokens), estimated=False)
        prompt = await self._prompt(messages)
        if self._local is not None:
            return await self._local.count(prompt, special=True)
        return TokenCount(len(await self._node.tokens_of("/tokenize", {"inputs": prompt})), estimated=False)

    async def load(self) -> EngineLoad | None:
        """What `/metrics` says; a node that was asked nothing yet has nothing to do."""
        return read_load(await self._node.get_text("/metrics")) or EngineLoad(0, 0)

    def _read(self, frames: _Events, request: EngineRequest) -> AsyncGenerator[EngineEvent, None]:
        if self._prompts.by_engine:
            fail = partial(of_chat_frame, self.address)
            return chat_events(frames, request, address=self.address, to_error=fail)
        return generate_events(frames, request, self.address)

    async def _prompt(self, messages: Sequence[Message]) -> str:
        """What `/generate_stream` is sent: without the first token that the node puts before it anyway."""
        prompt = self._prompts.render(messages)
        bos = self._prompts.bos
        if not bos or not prompt.startswith(bos):
            return prompt
        if self._adds_bos is None:
            tokens = await self._node.tokens_of("/tokenize", {"inputs": "a"})
            self._adds_bos = bool(tokens) and tokens[0].start == tokens[0].stop
        return prompt.removeprefix(bos) if self._adds_bos else prompt
