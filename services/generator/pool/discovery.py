"""Finds a pool's replicas behind one DNS name, such as a headless service of Kubernetes.

Given to `replica_pool.py` by the generator's bootstrap, which passes in how an engine is opened.
"""

import asyncio
import socket
from collections.abc import Callable
from contextlib import AbstractAsyncContextManager
from urllib.parse import parse_qsl, urlsplit, urlunsplit

from servicekit.errors import BackendUnavailable, InvalidRequest
from servicekit.ports.engine import Engine

_WITHIN_S = 5.0
_NO_TLS = frozenset({"0", "false", "no"})


class DnsDiscovery:
    """Every address of the URL's host is a replica at the URL's port.

    Raises:
        InvalidRequest: the URL names no host or no port, or asks for TLS: a certificate is for a name, and these are
            reached by address.
    """

    def __init__(self, url: str, open_engine: Callable[[str], AbstractAsyncContextManager[Engine]]) -> None:
        parts = urlsplit(url)
        if not parts.hostname or parts.port is None:
            raise InvalidRequest(
                f"a pool found by DNS needs host and port, as in tgi://tgi:8080; got {url!r}", field="dns"
            )
        if dict(parse_qsl(parts.query)).get("tls", "false").lower() not in _NO_TLS:
            raise InvalidRequest(
                f"a pool found by DNS reaches its servers by address, for which no certificate holds; got {url!r}: "
                "leave tls out, or list the servers by name in urls",
                field="dns",
            )
        self._parts = parts
        self._host = parts.hostname
        self._port = parts.port
        self._open_engine = open_engine

    async def find(self) -> frozenset[str]:
        """A URL for each address that the name has now.

        Raises:
            BackendUnavailable: the name does not resolve (DNS).
        """
        loop = asyncio.get_running_loop()
        try:
            async with asyncio.timeout(_WITHIN_S):
                found = await loop.getaddrinfo(self._host, self._port, type=socket.SOCK_STREAM)
        except (OSError, TimeoutError) as exc:
            raise BackendUnavailable(f"{self._host} does not resolve", reason="DNS") from exc
        return frozenset(self._url(str(address[0])) for _, _, _, _, address in found)

    def open(self, url: str) -> AbstractAsyncContextManager[Engine]:
        """Connect to one of them."""
        return self._open_engine(url)

    def _url(self, address: str) -> str:
        host = f"[{address}]" if ":" in address else address
        return urlunsplit(self._parts._replace(netloc=f"{host}:{self._port}"))
