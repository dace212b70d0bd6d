"""Reads a `kafka://` URL: `kafka://host:port[,host:port…][?instance=NAME&session_s=6]`.

Pure; called by `event_bus.py`.
"""

from dataclasses import dataclass
from urllib.parse import parse_qsl, urlsplit

from servicekit.errors import InvalidRequest

DEFAULT_SESSION_S = 6.0
MIN_SESSION_S = 1.0
MAX_SESSION_S = 1800.0
_DEFAULT_PORT = 9092


@dataclass(frozen=True, slots=True)
class KafkaAddress:
    """Where to bootstrap, and how members of groups live.

    `instance`, unique among a group's replicas, makes its members static: a restart spares a rebalance.
    A member not heard of for `session_s` is taken for dead; Kafka's own bounds are 6 s to 30 minutes.
    """

    servers: tuple[str, ...]
    instance: str | None = None
    session_s: float = DEFAULT_SESSION_S


def parse_address(url: str) -> KafkaAddress:
    """The servers to bootstrap from and the options.

    Raises:
        InvalidRequest: no server is named, a port is no number, or an option is unknown.
    """
    try:
        parts = urlsplit(url)
    except ValueError as exc:
        raise _refused(url, f"is no URL ({exc})") from exc
    options = dict(parse_qsl(parts.query))
    instance = options.pop("instance", None)
    session_s = _seconds(url, options.pop("session_s", str(DEFAULT_SESSION_S)))
    if options:
        raise _refused(url, f"knows only the options instance and session_s, not {', '.join(options)}")
    servers = tuple(_server(url, one) for one in parts.netloc.split(",") if one)
    if not servers:
        raise _refused(url, "must name a server, such as kafka://127.0.0.1:9092")
    return KafkaAddress(servers=servers, instance=instance, session_s=session_s)


def _seconds(url: str, text: str) -> float:
    try:
        seconds = float(text)
    except ValueError:
        seconds = 0.0
    if not MIN_SESSION_S <= seconds <= MAX_SESSION_S:
        raise _refused(url, f"must have session_s from {MIN_SESSION_S:g} to {MAX_SESSION_S:g}, got {text!r}")
    return seconds


def _server(url: str, text: str) -> str:
    host, colon, port = text.rpartition(":")
    if not colon:
        return f"{text}:{_DEFAULT_PORT}"
    if not host or not port.isdecimal():
        raise _refused(url, f"must name servers as host:port, got {text!r}")
    return text


def _refused(url: str, problem: str) -> InvalidRequest:
    return InvalidRequest(f"event_bus_url {problem}: {url!r}", field="event_bus_url")
