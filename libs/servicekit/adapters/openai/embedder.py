"""An embedder behind any OpenAI-compatible embeddings route (vendors, vLLM, Ollama, TEI), by `openai`.

Opened by the registry for `openai://host[:port]/v1?model=NAME[&dimensions=512][&max_tokens=8191]`
`[&tokenizer=/path/tokenizer.json][&query_prefix=…][&document_prefix=…][&batch=64][&concurrency=4][&revision=NAME]`.

The route tells neither window nor revision: the URL does, so that a vendor's new model under an old name can be told
apart by `revision=`. Texts are kept within `max_tokens` by the tokenizer, since the route refuses what is longer.
"""

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager

import httpx2
import openai

from servicekit.adapters.embedder_url import (
    SHARED_OPTIONS,
    name_prefixes,
    read_limits,
    read_number,
    read_prefixes,
    tokenizer_path,
)
from servicekit.adapters.engine_failures import MALFORMED, nonsense
from servicekit.adapters.engine_url import EngineUrl, parse_engine_url
from servicekit.adapters.openai.failures import to_error
from servicekit.adapters.openai.tokenizer import EstimatingTokenizer
from servicekit.adapters.remote_embedding import RemoteEmbedder
from servicekit.adapters.tokenizer_file import FileTokenizer
from servicekit.errors import InvalidRequest
from servicekit.ports.embedder import EmbeddingModel, Tokenizer

DEFAULT_MAX_TOKENS = 8_191
DEFAULT_BATCH_TEXTS = 64
_MAX_WINDOW_TOKENS = 1_000_000
_MAX_DIMENSIONS = 65_536
_CONNECT_S = 3.0
_FIRST_EMBEDDING_S = 30.0
_OPTIONS = SHARED_OPTIONS | {"model", "dimensions", "max_tokens", "revision"}
_CLIENT_ERRORS = (openai.OpenAIError, httpx2.HTTPError, *MALFORMED)
# The package insists on a key; a server of our own asks for none.
_NO_KEY = "none"


@asynccontextmanager
async def open_embedder(url: str, *, api_key: str | None = None) -> AsyncIterator[RemoteEmbedder]:
    """Embed one text to learn the dimension. Without a port the URL is https; the key never stands in it.

    Raises:
        InvalidRequest: the URL cannot be followed, or the server finds fault with model or dimensions.
        NotReady: the tokenizer file cannot be read.
        BackendUnavailable, BackendTimeout: the server does not answer.
    """
    parsed = parse_engine_url(url, known_options=_OPTIONS, tls_without_port=True)
    route = _Route(parsed, api_key)
    try:
        prefixes = read_prefixes(parsed.options)
        tokenizer = await asyncio.to_thread(_open_tokenizer, parsed)
        max_tokens = read_number(
            parsed.options, "max_tokens", default=DEFAULT_MAX_TOKENS, maximum=_MAX_WINDOW_TOKENS
        ) - max(map(tokenizer.count, (prefixes.query, prefixes.document)))
        limits = read_limits(parsed.options, default_batch_texts=DEFAULT_BATCH_TEXTS)
        first = await route.send(["a"], _FIRST_EMBEDDING_S)
        embedder = RemoteEmbedder(
            address=parsed.address,
            model=EmbeddingModel(
                name=route.model,
                revision=_revision(parsed, len(first[0])) + name_prefixes(prefixes),
                dimension=len(first[0]),
                max_tokens=max_tokens,
            ),
            tokenizer=tokenizer,
            send=_Cutting(route, tokenizer, max_tokens).send,
            check=route.check,
            limits=limits,
            prefixes=prefixes,
        )
        try:
            yield embedder
        finally:
            embedder.close()
    finally:
        await route.close()


class _Route:
    """The embeddings route of one server."""

    def __init__(self, url: EngineUrl, api_key: str | None) -> None:
        self.model = url.options.get("model", "")
        if not self.model:
            raise InvalidRequest("embedder_url: openai:// needs model=NAME", field="embedder_url")
        asked = read_number(url.options, "dimensions", default=1, maximum=_MAX_DIMENSIONS)
        self._dimensions: int | openai.Omit = asked if "dimensions" in url.options else openai.omit
        self._address = url.address
        # No retries: those of `remote_embedding` are bounded by the caller's patience.
        self._client = openai.AsyncOpenAI(
            base_url=url.base_url, api_key=api_key or _NO_KEY, max_retries=0, timeout=_FIRST_EMBEDDING_S
        )

    async def send(self, texts: Sequence[str], timeout_s: float) -> Sequence[Sequence[float]]:
        """One batch, in the order that the indexes of the answer say."""
        try:
            answer = await self._client.embeddings.create(
                model=self.model,
                input=list(texts),
                dimensions=self._dimensions,
                timeout=httpx2.Timeout(timeout_s, connect=min(_CONNECT_S, timeout_s)),
            )
            return [one.embedding for one in sorted(answer.data, key=lambda one: one.index)]
        except _CLIENT_ERRORS as error:
            # The package says so, in this type, of an answer that holds nothing.
            no_data = isinstance(error, ValueError) and "embedding" in str(error)
            raise nonsense(self._address) if no_data else to_error(self._address, error) from error

    async def check(self) -> None:
        """Embed one letter: what else such a server answers says nothing of this route."""
        await self.send(["a"], _CONNECT_S)

    async def close(self) -> None:
        """Close the connections."""
        await self._client.close()


class _Cutting:
    """Cuts what is too long before it is sent."""

    def __init__(self, route: _Route, tokenizer: Tokenizer, max_tokens: int) -> None:
        self._route = route
        self._tokenizer = tokenizer
        self._max_tokens = max_tokens

    async def send(self, texts: Sequence[str], timeout_s: float) -> Sequence[Sequence[float]]:
        """One batch of texts that the model can read whole."""
        # A token is a character at least: what has no more of those need not be counted.
        if any(len(text.encode()) > self._max_tokens for text in texts):
            texts = await asyncio.to_thread(lambda: [self._cut(text) for text in texts])
        return await self._route.send(texts, timeout_s)

    def _cut(self, text: str) -> str:
        if len(text.encode()) <= self._max_tokens:
            return text
        offsets = self._tokenizer.offsets(text)
        return text if len(offsets) <= self._max_tokens else text[: offsets[self._max_tokens - 1][1]]


def _revision(url: EngineUrl, dimension: int) -> str:
    """What the URL says of it; the dimension, since cut vectors share no index with whole ones."""
    named = url.options.get("revision") or "unversioned"
    return f"{named}-{dimension}"


def _open_tokenizer(url: EngineUrl) -> Tokenizer:
    path = tokenizer_path(url.options)
    return EstimatingTokenizer() if path is None else FileTokenizer(path)
