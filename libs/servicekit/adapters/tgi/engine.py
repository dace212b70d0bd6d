"""An engine on a Text Generation Inference node, through huggingface_hub's async client.

Opened by the registry for `tgi://host:port[?template=plain|chatml][&tls=true]`.
"""

from collections.abc import AsyncGenerator, AsyncIterator, Sequence
from contextlib import aclosing, asynccontextmanager
from typing import Any

import httpx2
from huggingface_hub import AsyncInferenceClient, TextGenerationStreamOutput

from servicekit.adapters.engine_failures import MALFORMED, nonsense, stream_cut
from servicekit.adapters.engine_load import read_load
from servicekit.adapters.engine_url import EngineUrl, parse_engine_url
from servicekit.adapters.stop_texts import StopTexts
from servicekit.adapters.tgi.failures import to_error
from servicekit.adapters.tgi.template import Template, render
from servicekit.adapters.tgi.transport import NodeTransport
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
from servicekit.errors import InvalidRequest

_CONNECT_S = 3.0
_CONTROL_S = 5.0
_DEFAULT_OUTPUT_TOKENS = 512
_REASONS = {
    "length": FinishReason.LENGTH,
    "eos_token": FinishReason.STOP,
    "stop_sequence": FinishReason.STOP,
}
_CLIENT_ERRORS = (httpx2.HTTPError, *MALFORMED)


@asynccontextmanager
async def open_engine(url: str, *, api_key: str | None = None) -> AsyncIterator["TgiEngine"]:
    """Open the connection pool to one node; nothing is sent yet."""
    parsed = parse_engine_url(url, known_options=frozenset({"template"}))
    template = Template(_known_template(parsed))
    transport = NodeTransport(httpx2.AsyncHTTPTransport(limits=_LIMITS), api_key=api_key)
    # A node stands in our own network: no proxy of the environment is asked.
    async with httpx2.AsyncClient(
        transport=transport, event_hooks={"response": [_read_error_body]}, trust_env=False, timeout=_TIMEOUT
    ) as http:
        yield TgiEngine(parsed, http, template=template)


class TgiEngine:
    """One node. Prompts are rendered here, so that what is counted by `/tokenize` is what is sent."""

    def __init__(self, url: EngineUrl, http: httpx2.AsyncClient, *, template: Template) -> None:
        self._url = url
        self._http = http
        self._template = template

    @property
    def address(self) -> str:
        """The URL it was opened by."""
        return self._url.address

    async def info(self) -> ModelInfo:
        """What `/info` says; `max_input_length` is the older name of `max_input_tokens`."""
        body = await self._control("GET", "/info")
        try:
            return ModelInfo(
                model=str(body["model_id"]),
                revision=str(body.get("model_sha") or ""),
                max_input_tokens=int(body.get("max_input_tokens") or body["max_input_length"]),
                max_total_tokens=int(body["max_total_tokens"]),
                max_concurrent_requests=int(body.get("max_concurrent_requests") or 0),
            )
        except MALFORMED as error:
            raise to_error(self.address, error) from error

    async def generate(self, request: EngineRequest) -> AsyncGenerator[EngineEvent, None]:
        """Stream the answer; see the port."""
        parameters = _parameters(request.sampling)
        async with _OneCall(self._url.base_url, self._http) as client:
            try:
                frames = await client.text_generation(
                    render(request.messages, self._template), stream=True, details=True, **parameters
                )
                stop = request.sampling.stop
                async with aclosing(frames), aclosing(_events(frames, stop, self.address)) as events:
                    async for event in events:
                        yield event
            except _CLIENT_ERRORS as error:
                raise to_error(self.address, error) from error

    async def count_tokens(self, text: str) -> TokenCount:
        """Ask `/tokenize`, which adds the special tokens of a prompt to any text: they cover no character."""
        if not text:
            return TokenCount(0, estimated=False)
        pieces = await self._tokenize("/tokenize", {"inputs": text, "add_special_tokens": False})
        return TokenCount(sum(1 for piece in pieces if piece["start"] < piece["stop"]), estimated=False)

    async def count_messages(self, messages: Sequence[Message]) -> TokenCount:
        """Ask for the tokens of what a generation sends."""
        pieces = await self._tokenize("/tokenize", {"inputs": render(messages, self._template)})
        return TokenCount(len(pieces), estimated=False)

    async def load(self) -> EngineLoad | None:
        """What `/metrics` says; a node that was asked nothing yet has nothing to do."""
        page = (await self._call("GET", "/metrics")).text
        return read_load(page) or EngineLoad(0, 0)

    async def _tokenize(self, path: str, body: object) -> list[Any]:
        pieces = await self._control("POST", path, body)
        if not isinstance(pieces, list):
            raise nonsense(self.address)
        return pieces

    async def _control(self, method: str, path: str, body: object | None = None) -> Any:
        """The JSON of one call beside generation."""
        response = await self._call(method, path, body)
        try:
            return response.json()
        except MALFORMED as error:
            raise to_error(self.address, error) from error

    async def _call(self, method: str, path: str, body: object | None = None) -> httpx2.Response:
        """One call beside generation, bounded by itself."""
        try:
            response = await self._http.request(method, f"{self._url.base_url}{path}", json=body, timeout=_CONTROL_S)
            response.raise_for_status()
        except _CLIENT_ERRORS as error:
            raise to_error(self.address, error) from error
        return response


class _OneCall(AsyncInferenceClient):
    """The client for one call.

    A client keeps every response it streamed open until it is closed itself; one client a call, over the
    shared connections, is what makes leaving a stream early cancel it at the node.
    """

    def __init__(self, base_url: str, http: httpx2.AsyncClient) -> None:
        super().__init__(base_url, timeout=_TIMEOUT, token=_UNUSED_TOKEN)  # type: ignore[arg-type]  # handed to httpx as it is
        self._http = http

    async def _get_async_client(self) -> httpx2.AsyncClient:
        return self._http


_TIMEOUT = httpx2.Timeout(None, connect=_CONNECT_S)
_LIMITS = httpx2.Limits(max_connections=None, max_keepalive_connections=256, keepalive_expiry=30)
# Any token keeps the client from looking for the machine's; the transport sets the real header.
_UNUSED_TOKEN = "unused"  # noqa: S105  # no secret


async def _events(
    frames: AsyncIterator[TextGenerationStreamOutput], stop: tuple[str, ...], address: str
) -> AsyncGenerator[EngineEvent, None]:
    stops = StopTexts(stop)
    count = 0
    end: GenerationEnd | None = None
    async for frame in frames:
        count += 1
        text = "" if frame.token.special else stops.feed(frame.token.text)
        if text:
            yield TokenEvent(text, count)
            count = 0
        if frame.details is not None:
            usage = Usage(frame.details.input_length, frame.details.generated_tokens)
            end = GenerationEnd(_REASONS.get(frame.details.finish_reason, FinishReason.STOP), usage)
    if end is None:
        raise stream_cut(address)
    # Said only now: a response that was read to its end leaves its connection to the next.
    if rest := stops.rest():
        yield TokenEvent(rest, count)
    yield end


def _parameters(sampling: Sampling) -> dict[str, Any]:
    """TGI's names and bounds.

    Greedy is the absence of every sampling setting: TGI refuses a temperature of 0, and samples as soon as
    `top_p` or `top_k` is there. A `top_p` of 1 is likewise said by leaving it out.
    """
    if sampling.presence_penalty:
        raise InvalidRequest(
            "this model's engine has no presence penalty; leave sampling.presence_penalty out",
            field="sampling.presence_penalty",
            reason="UNSUPPORTED_SETTING",
        )
    greedy = not sampling.temperature
    return {
        "max_new_tokens": sampling.max_output_tokens or _DEFAULT_OUTPUT_TOKENS,
        "do_sample": not greedy,
        "temperature": None if greedy else sampling.temperature,
        "top_p": None if greedy or sampling.top_p == 1 else sampling.top_p,
        "top_k": None if greedy else sampling.top_k,
        "frequency_penalty": sampling.frequency_penalty,
        "stop": list(sampling.stop) or None,
        "seed": sampling.seed,
        "return_full_text": False,
    }


async def _read_error_body(response: httpx2.Response) -> None:
    """Errors are raised from a streamed response too, and need its body."""
    if response.is_error:
        await response.aread()


def _known_template(url: EngineUrl) -> str:
    template = url.options.get("template", Template.PLAIN.value)
    if template not in set(Template):
        raise InvalidRequest(f"template must be one of {', '.join(Template)}, got {template!r}", field="engine_url")
    return template
