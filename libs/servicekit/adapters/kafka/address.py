"""Reads a `kafka://` URL: `kafka://host:port[,host:port…][?instance=NAME]`.

Pure; called by `event_bus.py`.
"""

from dataclasses import dataclass
from urllib.parse import parse_qsl, urlsplit

from servicekit.errors import InvalidRequest

_DEFAULT_PORT = 9092


@dataclass(frozen=True, slots=True)
class KafkaAddress:
    """`instance`, unique among a group's replicas, makes its members static: a restart spares a rebalance."""

    servers: tuple[str, ...]
    instance: str | None = None


def parse_address(url: str) -> KafkaAddress:
    """The servers to bootstrap from and the options.

    Raises:
        InvalidRequest: no server is named, a port is no number, or an option is unknown.
    """
    parts = urlsplit(url)
    options = dict(parse_qsl(parts.query))
    instance = options.pop("instance", None)
    if options:
        raise _refused(url, f"knows only the option instance, not {', '.join(options)}")
    servers = tuple(_server(url, one) for one in parts.netloc.split(",") if one)
    if not servers:
        raise _refused(url, "must name a server, such as kafka://127.0.0.1:9092")
    return KafkaAddress(servers=servers, instance=instance)


def _server(url: str, text: str) -> str:
    host, colon, port = text.rpartition(":")
    if not colon:
        return f"{text}:{_DEFAULT_PORT}"
    if not host or not port.isdecimal():
        raise _refused(url, f"must name servers as host:port, got {text!r}")
    return text


def _refused(url: str, problem: str) -> InvalidRequest:
    return InvalidRequest(f"event_bus_url {problem}: {url!r}", field="event_bus_url")
