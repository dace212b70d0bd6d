"""Reads the URL of a remote engine: where it listens, and the options in its query.

Used by the TGI and OpenAI-compatible adapters; credentials never stand in it, so it may be logged.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from urllib.parse import parse_qsl, urlsplit

from servicekit.errors import InvalidRequest

_TRUE = frozenset({"1", "true", "yes"})


@dataclass(frozen=True, slots=True)
class EngineUrl:
    """`base_url` is http or https without a trailing slash; `address` is the URL as it was given."""

    address: str
    base_url: str
    options: Mapping[str, str]


def parse_engine_url(url: str, *, known_options: frozenset[str], tls_without_port: bool = False) -> EngineUrl:
    """Split `scheme://host[:port][/path][?option=value]`; `tls=true|false` chooses https, else http.

    With `tls_without_port`, a URL that names no port is https unless it says otherwise.

    Raises:
        InvalidRequest: no host, credentials in the URL, or an unknown option; names the known ones.
    """
    parts = urlsplit(url)
    if not parts.hostname:
        raise InvalidRequest(
            f"an engine URL needs a host, as in {parts.scheme}://host:8080; got {url!r}", field="engine_url"
        )
    if parts.username is not None:
        raise InvalidRequest(
            "an engine URL holds no credentials: give the key by file or environment", field="engine_url"
        )
    options = dict(parse_qsl(parts.query, keep_blank_values=True))
    unknown = sorted(options.keys() - known_options - {"tls"})
    if unknown:
        raise InvalidRequest(
            f"unknown option {unknown[0]!r} in {url!r}; known: {', '.join(sorted(known_options | {'tls'}))}",
            field="engine_url",
        )
    default_tls = tls_without_port and parts.port is None
    tls = options.pop("tls", str(default_tls)).lower() in _TRUE
    return EngineUrl(url, f"{'https' if tls else 'http'}://{parts.netloc}{parts.path.rstrip('/')}", options)
