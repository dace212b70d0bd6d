"""Fetches content over HTTP(S) and from files, only below prefixes that the settings allow.

Opened by `services.retriever.bootstrap`. A prefix is what protects the network around the service: no address outside
of them is ever asked, after a redirect neither, and nothing is sent along that would tell the service apart.
"""

import asyncio
import os
import stat
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from urllib.parse import SplitResult, unquote, urljoin, urlsplit

import httpx2

from servicekit.errors import BackendTimeout, BackendUnavailable, InvalidRequest
from servicekit.ports.content_source import FetchedContent

MAX_REDIRECTS = 5
_CONNECT_S = 5.0
_DEFAULT_PORTS = {"http": 80, "https": 443}
_CLIENT_ERROR, _SERVER_ERROR = 400, 500
# They ask to come again later, though by number the request was wrong.
_COME_AGAIN = frozenset({408, 425, 429})


class HttpContentSource:
    """`allowed` are parsed prefixes; without any, everything is refused."""

    def __init__(self, client: httpx2.AsyncClient, *, allowed: Sequence["Prefix"], timeout_s: float) -> None:
        self._client = client
        self._allowed = allowed
        self._timeout_s = timeout_s

    async def fetch(self, uri: str, *, max_bytes: int) -> FetchedContent:
        """All bytes behind an address; see the port."""
        self._check(uri)
        try:
            async with asyncio.timeout(self._timeout_s):
                if urlsplit(uri).scheme.lower() == "file":
                    return await asyncio.to_thread(self._read_file, uri, max_bytes)
                return await self._get(uri, max_bytes)
        except TimeoutError as exc:
            raise BackendTimeout(f"{uri} took longer than {self._timeout_s:g} s", reason="FETCH_TIMEOUT") from exc

    def _check(self, uri: str) -> None:
        if not any(prefix.allows(uri) for prefix in self._allowed):
            raise InvalidRequest(
                f"fetch_uri {uri[:200]!r} is outside of what the retriever may fetch: allow a prefix of it in "
                "BINNACLE_RETRIEVER__FETCH_ALLOWED_PREFIXES, or hand in the content itself",
                field="fetch_uri",
                reason="FETCH_NOT_ALLOWED",
            )

    async def _get(self, uri: str, max_bytes: int) -> FetchedContent:
        for _ in range(MAX_REDIRECTS + 1):
            try:
                # The address as the client understands it: another reading of odd spellings must not lead elsewhere.
                uri = str(httpx2.URL(uri))
                self._check(uri)
                async with self._client.stream("GET", uri) as response:
                    if not response.is_redirect:
                        return await _read_response(response, uri, max_bytes)
                    uri = urljoin(uri, response.headers.get("location", ""))
            except httpx2.TimeoutException as exc:
                raise BackendTimeout(f"{uri} does not answer in time", reason="FETCH_TIMEOUT") from exc
            except (httpx2.UnsupportedProtocol, httpx2.InvalidURL, UnicodeError) as exc:
                raise _refusal(uri, f"is no address that can be fetched ({type(exc).__name__})") from exc
            except httpx2.HTTPError as exc:
                raise BackendUnavailable(f"{uri}: {type(exc).__name__}", reason="FETCH_UNAVAILABLE") from exc
        raise _refusal(uri, f"is behind more than {MAX_REDIRECTS} redirects")

    def _read_file(self, uri: str, max_bytes: int) -> FetchedContent:
        path = _file_path(urlsplit(uri))
        try:
            # What a link leads to must be allowed too; what is opened is what was checked, links no longer followed.
            real = path.resolve(strict=True)
            self._check(real.as_uri())
            descriptor = os.open(real, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
            with os.fdopen(descriptor, "rb") as file:
                if not stat.S_ISREG(os.fstat(descriptor).st_mode):
                    raise _refusal(uri, "is no regular file")
                content = file.read(max_bytes + 1)
        except OSError as exc:
            raise _refusal(uri, f"cannot be read ({exc.strerror or type(exc).__name__})") from exc
        _check_size(uri, len(content), max_bytes)
        return FetchedContent(content, "")


class Prefix:
    """An allowed beginning of addresses: scheme, host and port exactly, and the path by whole segments."""

    def __init__(self, text: str) -> None:
        self._parts = _split(text)
        self._segments = _segments(self._parts.path)

    def allows(self, uri: str) -> bool:
        """Whether an address lies at or below it; one with `..` in its path, or with a password, never does."""
        try:
            parts = _split(uri)
            origin = _origin(parts)
        except (InvalidRequest, ValueError):
            return False
        segments = _segments(parts.path)
        if parts.username is not None or any(segment in {".", ".."} for segment in segments):
            return False
        return origin == _origin(self._parts) and segments[: len(self._segments)] == self._segments


def read_prefixes(setting: str) -> tuple[Prefix, ...]:
    """The setting `fetch_allowed_prefixes`: addresses parted by blanks or commas.

    Raises:
        InvalidRequest: one is no `https://…`, `http://…` or `file:///…`.
    """
    return tuple(Prefix(text) for text in setting.replace(",", " ").split())


def _split(uri: str) -> SplitResult:
    parts = urlsplit(uri)
    named = bool(parts.hostname)
    if parts.scheme not in {"https", "http", "file"} or named != (parts.scheme != "file") or "\\" in uri:
        raise InvalidRequest(
            f"fetch_allowed_prefixes must be https://host/…, http://host/… or file:///…, got {uri[:200]!r}",
            field="fetch_allowed_prefixes",
        )
    return parts


def _origin(parts: SplitResult) -> tuple[str, str, int]:
    return parts.scheme, (parts.hostname or "").rstrip("."), parts.port or _DEFAULT_PORTS.get(parts.scheme, 0)


def _segments(path: str) -> list[str]:
    """The path's names as the server reads them; a trailing slash says nothing."""
    return [unquote(segment) for segment in unquote(path).split("/") if segment]


def _file_path(parts: SplitResult) -> Path:
    return Path(unquote(parts.path))


async def _read_response(response: httpx2.Response, uri: str, max_bytes: int) -> FetchedContent:
    status = response.status_code
    if status >= _SERVER_ERROR or status in _COME_AGAIN:
        raise BackendUnavailable(f"{uri} answers with status {status}", reason="FETCH_UNAVAILABLE")
    if status >= _CLIENT_ERROR or not response.is_success:
        raise _refusal(uri, f"answers with status {status}")
    parts: list[bytes] = []
    size = 0
    # Counted as it unfolds: a small answer can be compressed from any length.
    async for part in response.aiter_bytes():
        size += len(part)
        _check_size(uri, size, max_bytes)
        parts.append(part)
    return FetchedContent(b"".join(parts), response.headers.get("content-type", ""))


def _check_size(uri: str, size: int, max_bytes: int) -> None:
    if size > max_bytes:
        raise _refusal(uri, f"has more than {max_bytes} bytes: split the document")


def _refusal(uri: str, problem: str) -> InvalidRequest:
    return InvalidRequest(f"fetch_uri {uri[:200]!r} {problem}", field="fetch_uri", reason="FETCH_FAILED")


@asynccontextmanager
async def open_content_source(allowed_prefixes: str, *, timeout_s: float) -> AsyncIterator[HttpContentSource]:
    """A client of its own; connections end with the block.

    Raises:
        InvalidRequest: a prefix is none.
    """
    allowed = read_prefixes(allowed_prefixes)
    async with httpx2.AsyncClient(
        trust_env=False,
        follow_redirects=False,
        timeout=httpx2.Timeout(timeout_s, connect=min(_CONNECT_S, timeout_s)),
        headers={"user-agent": "binnacle-retriever", "accept": "*/*"},
    ) as client:
        yield HttpContentSource(client, allowed=allowed, timeout_s=timeout_s)
