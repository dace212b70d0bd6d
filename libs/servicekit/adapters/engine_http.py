"""The HTTP client of remote engines: httpx2 above, so that every library keeps its errors, aiohttp below.

Used by the TGI and OpenAI-compatible adapters. httpx2's own transport parses HTTP in Python and costs a token of a
stream about 130 µs of CPU, aiohttp's parser in C about 55 (200 streams, a read for each token).
"""

from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager

import aiohttp
import httpx2

CONNECT_S = 3.0
CONTROL_S = 5.0
_IDLE_CONNECTION_S = 30.0
_STREAM_TIMEOUT = httpx2.Timeout(None, connect=CONNECT_S)


@asynccontextmanager
async def open_http(*, api_key: str | None = None, proxies: bool = False) -> AsyncIterator[httpx2.AsyncClient]:
    """A client without bounds but for connecting; `proxies` takes those of the environment.

    Answers come as they are: compressed ones are not asked for, and redirects not followed.
    """
    headers = {"accept-encoding": "identity"}
    if api_key is not None:
        headers["authorization"] = f"Bearer {api_key}"
    async with (
        aiohttp.ClientSession(
            connector=aiohttp.TCPConnector(limit=0, keepalive_timeout=_IDLE_CONNECTION_S),
            cookie_jar=aiohttp.DummyCookieJar(),
            timeout=aiohttp.ClientTimeout(total=None),
            auto_decompress=False,
            trust_env=proxies,
            raise_for_status=False,
        ) as session,
        httpx2.AsyncClient(
            transport=_Transport(session), headers=headers, trust_env=False, timeout=_STREAM_TIMEOUT
        ) as client,
    ):
        yield client


def request_headers(request_id: str) -> dict[str, str]:
    """The caller's name for the work, for the engine's log; what a header cannot hold is left out."""
    told = "".join(character for character in request_id if "!" <= character <= "~")
    return {"x-request-id": told} if told else {}


class _Transport(httpx2.AsyncBaseTransport):
    def __init__(self, session: aiohttp.ClientSession) -> None:
        self._session = session

    async def handle_async_request(self, request: httpx2.Request) -> httpx2.Response:
        timeout = request.extensions.get("timeout", {})
        with _httpx_errors(request):
            response = await self._session.request(
                request.method,
                str(request.url),
                headers=request.headers.multi_items(),
                data=request.content or None,
                skip_auto_headers=("user-agent", "accept-encoding", "content-type"),
                allow_redirects=False,
                timeout=aiohttp.ClientTimeout(
                    total=None, sock_connect=timeout.get("connect"), sock_read=timeout.get("read")
                ),
            )
        return httpx2.Response(
            response.status,
            headers=list(response.raw_headers),
            stream=_Body(response, request),
            request=request,
            extensions={"http_version": b"HTTP/1.1"},
        )


class _Body(httpx2.AsyncByteStream):
    """The bytes as they come; closed before their end, the connection is closed at once."""

    def __init__(self, response: aiohttp.ClientResponse, request: httpx2.Request) -> None:
        self._response = response
        self._request = request

    async def __aiter__(self) -> AsyncIterator[bytes]:
        content = self._response.content
        with _httpx_errors(self._request):
            try:
                while data := await content.readany():
                    yield data
            except aiohttp.ClientError:
                # aiohttp forgets what had come before a connection broke, were it not read yet; tokens that came count.
                if lost := b"".join(content._buffer):  # noqa: SLF001  # no public way to it once an error is set
                    yield lost
                raise

    async def aclose(self) -> None:
        """Let the next request have the connection where all was read, else close it."""
        if self._response.content.at_eof() and self._response.content.exception() is None:
            self._response.release()
        else:
            self._response.close()


@contextmanager
def _httpx_errors(request: httpx2.Request) -> Iterator[None]:
    """Raise aiohttp's errors as httpx2 names them."""
    try:
        yield
    except (aiohttp.ConnectionTimeoutError, aiohttp.ClientConnectorError) as error:
        raise httpx2.ConnectError(str(error), request=request) from error
    except (TimeoutError, aiohttp.ServerTimeoutError) as error:
        raise httpx2.ReadTimeout(str(error), request=request) from error
    except (aiohttp.ClientError, OSError) as error:
        raise httpx2.ReadError(str(error), request=request) from error
