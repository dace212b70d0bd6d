"""One text-embeddings-inference node over HTTP: calls with a bound each, and its errors as Binnacle's.

Used by `embedder.py`, `tokenizer.py` and the reranker. The node's error bodies are `{"error", "error_type"}`: 413 for a
batch or an input over a limit, 422 for a text that does not tokenise, 424 for a failed inference, 429 for overload.
"""

from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from typing import Any

import httpx2

from servicekit.adapters import engine_failures as failures
from servicekit.adapters.engine_url import EngineUrl, parse_engine_url
from servicekit.errors import BinnacleError

CONNECT_S = 3.0
CONTROL_S = 5.0
_MAX_CONNECTIONS = 64


class TeiNode:
    """A node's address and the connections to it."""

    def __init__(self, url: EngineUrl, http: httpx2.AsyncClient) -> None:
        self._url = url
        self._http = http

    @property
    def address(self) -> str:
        """The URL it was opened by."""
        return self._url.address

    @property
    def base_url(self) -> str:
        """Where its routes are, http or https."""
        return self._url.base_url

    @property
    def options(self) -> Mapping[str, str]:
        """The URL's options."""
        return self._url.options

    async def get(self, path: str, *, timeout_s: float = CONTROL_S) -> Any:
        """The decoded answer to a GET; see `post` for the errors."""
        return await self._call("GET", path, None, timeout_s)

    async def post(self, path: str, body: object, *, timeout_s: float) -> Any:
        """The decoded answer to a POST.

        Raises:
            InvalidRequest: the node finds fault with the body.
            Overloaded: it refuses for load.
            BackendUnavailable, BackendTimeout: no answer, or none that can be read.
        """
        return await self._call("POST", path, body, timeout_s)

    async def check_health(self) -> None:
        """Return if the node says that it works."""
        try:
            response = await self._http.get(f"{self._url.base_url}/health", timeout=CONTROL_S)
            response.raise_for_status()
        except httpx2.HTTPError as error:
            raise to_error(self.address, error) from error

    async def _call(self, method: str, path: str, body: object, timeout_s: float) -> Any:
        timeout = httpx2.Timeout(timeout_s, connect=min(CONNECT_S, timeout_s))
        try:
            response = await self._http.request(method, f"{self._url.base_url}{path}", json=body, timeout=timeout)
            response.raise_for_status()
            return response.json()
        except (httpx2.HTTPError, *failures.MALFORMED) as error:
            raise to_error(self.address, error) from error


@asynccontextmanager
async def open_node(url: str, *, known_options: frozenset[str], api_key: str | None = None) -> AsyncIterator[TeiNode]:
    """Open the connection pool to `tei://host[:port]`; nothing is sent yet.

    Raises:
        InvalidRequest: no host, credentials in the URL, or an unknown option.
    """
    parsed = parse_engine_url(url, known_options=known_options)
    limits = httpx2.Limits(max_connections=_MAX_CONNECTIONS, max_keepalive_connections=_MAX_CONNECTIONS)
    # A node stands in our own network: no proxy of the environment is asked.
    async with httpx2.AsyncClient(headers=key_headers(api_key), limits=limits, trust_env=False) as http:
        yield TeiNode(parsed, http)


def key_headers(api_key: str | None) -> dict[str, str]:
    """What a node that was started with `--api-key` asks for."""
    return {"authorization": f"Bearer {api_key}"} if api_key else {}


def to_error(address: str, error: Exception) -> BinnacleError:
    """Binnacle's error for what the client raised."""
    match error:
        case httpx2.HTTPStatusError():
            retry_after = error.response.headers.get("retry-after")
            return failures.of_status(
                address, error.response.status_code, retry_after=retry_after, detail=_detail(error.response)
            )
        case httpx2.ConnectError() | httpx2.ConnectTimeout():
            return failures.unreachable(address)
        case httpx2.TimeoutException():
            return failures.timed_out(address)
        case httpx2.TransportError():
            return failures.stream_cut(address)
        case _:
            return failures.nonsense(address)


def _detail(response: httpx2.Response) -> str:
    try:
        body = response.json()
    except ValueError:
        return ""
    return str(body.get("error", "")) if isinstance(body, Mapping) else ""
