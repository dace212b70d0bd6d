"""The address of a Redis, and the pool of connections to it. Used by `state_store.py`.

    redis://host:6379/0?user=binnacle&password_file=/run/secrets/redis&timeout_s=1&connections=64

`rediss://` speaks TLS, `ca_file=` names whom it trusts. A password stands in a file or in BINNACLE_REDIS_PASSWORD,
never here: settings are shown.
"""

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import parse_qsl, urlsplit

from redis.asyncio import BlockingConnectionPool
from redis.asyncio.connection import Connection, SSLConnection
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff

from servicekit.errors import InvalidRequest

PASSWORD_VARIABLE = "BINNACLE_REDIS_PASSWORD"  # noqa: S105  # its name
_SCHEMES = {"redis": False, "rediss": True}
_PORT = 6379
_OPTIONS = frozenset({"user", "password_file", "timeout_s", "connections", "ca_file"})


@dataclass(frozen=True, slots=True)
class RedisAddress:
    """Where a Redis is, as whom to ask, and how long one call may take."""

    host: str
    port: int
    database: int
    secure: bool
    user: str
    password_file: str
    timeout_s: float
    connections: int
    ca_file: str

    def __str__(self) -> str:
        """Host and port, for messages."""
        return f"{self.host}:{self.port}"


def parse_address(url: str) -> RedisAddress:
    """Read the URL.

    Raises:
        InvalidRequest: says what is wrong with it, without its user part.
    """
    parts = urlsplit(url)
    if parts.username or parts.password:
        raise _refused(f"must hold no password: name a file (?password_file=…) or set {PASSWORD_VARIABLE}")
    if parts.scheme not in _SCHEMES or not parts.hostname:
        raise _refused(f"must be redis://host:6379/0, got {parts.scheme}://…")
    options = dict(parse_qsl(parts.query, keep_blank_values=True))
    if unknown := options.keys() - _OPTIONS:
        raise _refused(f"has unknown options {', '.join(sorted(unknown))}; known: {', '.join(sorted(_OPTIONS))}")
    try:
        address = RedisAddress(
            host=parts.hostname,
            port=parts.port or _PORT,
            database=int(parts.path.strip("/") or "0"),
            secure=_SCHEMES[parts.scheme],
            user=options.get("user", ""),
            password_file=options.get("password_file", ""),
            timeout_s=float(options.get("timeout_s", "1")),
            connections=int(options.get("connections", "64")),
            ca_file=options.get("ca_file", ""),
        )
    except ValueError as exc:
        raise _refused(f"holds no number where one must be: {exc}") from exc
    if not address.timeout_s > 0 or address.connections < 1 or address.database < 0:
        raise _refused(
            f"must have timeout_s above 0, connections from 1 and a database from 0, got {address.timeout_s:g}, "
            f"{address.connections} and {address.database}"
        )
    return address


def connection_pool(address: RedisAddress) -> BlockingConnectionPool:
    """Connections made when they are needed, at most so many at once. Reads the password; no other I/O.

    Nothing is tried again in here: a swap whose answer was lost may have been done.

    Raises:
        InvalidRequest: the password's file cannot be read.
    """
    tls: dict[str, Any] = {"ssl_ca_certs": address.ca_file} if address.secure and address.ca_file else {}
    return BlockingConnectionPool(
        max_connections=address.connections,
        timeout=address.timeout_s,
        connection_class=SSLConnection if address.secure else Connection,
        host=address.host,
        port=address.port,
        db=address.database,
        username=address.user or None,
        password=_password(address) or None,
        socket_timeout=address.timeout_s,
        socket_connect_timeout=address.timeout_s,
        retry=Retry(NoBackoff(), 0),
        protocol=2,
        client_name="binnacle",
        **tls,
    )


def _password(address: RedisAddress) -> str:
    if not address.password_file:
        return os.environ.get(PASSWORD_VARIABLE, "")
    try:
        return Path(address.password_file).read_text(encoding="utf-8").strip()
    except (OSError, ValueError) as exc:
        raise _refused(f"names a password_file that cannot be read: {exc}") from exc


def _refused(what: str) -> InvalidRequest:
    return InvalidRequest(f"state_store_url {what}", field="state_store_url", reason="INVALID_STATE_STORE_URL")
