"""The address of a Weaviate, and the connection to it. Used by `vector_store.py`.

    weaviate://host:8080?grpc_port=50051&grpc_host=…&collection_prefix=Binnacle&read_s=5&write_s=60
                        &connect_s=30&api_key_file=/run/secrets/weaviate

`weaviates://` speaks TLS on both ports. An API key stands in a file or in BINNACLE_WEAVIATE_API_KEY, never here.
"""

import asyncio
import os
import re
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import parse_qsl, urlsplit

import weaviate
from weaviate.classes.init import AdditionalConfig, Auth, GrpcConfig, Timeout

from servicekit.adapters.weaviate.faults import bounded
from servicekit.errors import BackendUnavailable, InvalidRequest

_SCHEMES = {"weaviate": False, "weaviates": True}
_PREFIX = re.compile(r"[A-Z][A-Za-z0-9]{0,39}")
_AGAIN_S = 0.5
_HTTP_PORTS = {False: 8080, True: 443}
# A server that was away is found again within a second, not within gRPC's two minutes.
_CHANNEL = [("grpc.initial_reconnect_backoff_ms", 100), ("grpc.max_reconnect_backoff_ms", 1000)]


@dataclass(frozen=True, slots=True)
class WeaviateAddress:
    """Where a Weaviate is, whose collections are ours, and how long calls may take."""

    host: str
    port: int
    grpc_host: str
    grpc_port: int
    secure: bool
    prefix: str
    read_s: float
    write_s: float
    connect_s: float
    api_key_file: str


def parse_address(url: str) -> WeaviateAddress:
    """Read the URL.

    Raises:
        InvalidRequest: says what is wrong with it.
    """
    parts = urlsplit(url)
    options = dict(parse_qsl(parts.query, keep_blank_values=True))
    if parts.scheme not in _SCHEMES or not parts.hostname or parts.path.strip("/") or parts.username:
        raise _refused(f"must be weaviate://host:port?grpc_port=50051, got {parts.scheme}://…{parts.path}")
    secure = _SCHEMES[parts.scheme]
    try:
        address = WeaviateAddress(
            host=parts.hostname,
            port=parts.port or _HTTP_PORTS[secure],
            grpc_host=options.pop("grpc_host", parts.hostname),
            grpc_port=int(options.pop("grpc_port", "50051")),
            secure=secure,
            prefix=options.pop("collection_prefix", "Binnacle"),
            read_s=float(options.pop("read_s", "5")),
            write_s=float(options.pop("write_s", "60")),
            connect_s=float(options.pop("connect_s", "30")),
            api_key_file=options.pop("api_key_file", ""),
        )
    except ValueError as exc:
        raise _refused(f"holds no number where one must be: {exc}") from exc
    if options:
        raise _refused(f"has unknown options {', '.join(sorted(options))}; leave them out")
    if not _PREFIX.fullmatch(address.prefix):
        raise _refused(f"collection_prefix must be a capital and up to 39 letters or digits, got {address.prefix!r}")
    return address


def _refused(what: str) -> InvalidRequest:
    return InvalidRequest(f"vector_store_url {what}", field="vector_store_url", reason="INVALID_VECTOR_STORE_URL")


@asynccontextmanager
async def connect(address: WeaviateAddress) -> AsyncIterator[weaviate.WeaviateAsyncClient]:
    """A connected client; waits `connect_s` for a server that is coming up.

    Raises:
        BackendUnavailable: none answers in time.
    """
    key = await asyncio.to_thread(_api_key, address)
    client = weaviate.use_async_with_custom(
        http_host=address.host,
        http_port=address.port,
        http_secure=address.secure,
        grpc_host=address.grpc_host,
        grpc_port=address.grpc_port,
        grpc_secure=address.secure,
        auth_credentials=Auth.api_key(key) if key else None,
        additional_config=AdditionalConfig(
            timeout=Timeout(query=address.read_s, insert=address.write_s, init=address.read_s),
            grpc_config=GrpcConfig(channel_options=_CHANNEL),
        ),
        skip_init_checks=True,  # they ask a package registry for newer versions
    )
    try:
        await _connect(client, address)
        yield client
    finally:
        await client.close()


async def _connect(client: weaviate.WeaviateAsyncClient, address: WeaviateAddress) -> None:
    give_up_s = time.monotonic() + address.connect_s
    while True:
        try:
            async with bounded(address.read_s):
                await client.connect()
        except BackendUnavailable as exc:
            if time.monotonic() > give_up_s:
                raise BackendUnavailable(
                    f"no Weaviate answers at {address.host}:{address.port} within {address.connect_s:g} s: start it, "
                    "or correct vector_store_url",
                    reason="VECTOR_STORE_UNREACHABLE",
                ) from exc
            await asyncio.sleep(_AGAIN_S)
        else:
            return


def _api_key(address: WeaviateAddress) -> str:
    if not address.api_key_file:
        return os.environ.get("BINNACLE_WEAVIATE_API_KEY", "")
    try:
        return Path(address.api_key_file).read_text(encoding="ascii").strip()
    except (OSError, ValueError) as exc:
        raise _refused(f"names an api_key_file that cannot be read: {exc}") from exc
