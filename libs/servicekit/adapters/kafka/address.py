"""Reads a `kafka://` URL: `kafka://host:port[,host:port…][?instance=NAME&session_s=6&spool_after_s=0.5&…]`.

Pure; called by `event_bus.py`.
"""

from dataclasses import dataclass
from urllib.parse import parse_qsl, urlsplit

from servicekit.errors import InvalidRequest

DEFAULT_SESSION_S = 6.0
MIN_SESSION_S = 1.0
MAX_SESSION_S = 1800.0
SPOOL_AFTER_S = 0.5
MAX_SPOOL_BYTES = 1024**3
_DEFAULT_PORT = 9092


@dataclass(frozen=True, slots=True)
class KafkaAddress:
    """Where to bootstrap, and how members of groups live.

    `instance`, unique among a group's replicas, makes its members static: a restart spares a rebalance.
    A member not heard of for `session_s` is taken for dead; Kafka's own bounds are 6 s to 30 minutes.
    Where a service has a spool, an event unacknowledged for `spool_after_s` goes there, `max_spool_bytes` at most.
    """

    servers: tuple[str, ...]
    instance: str | None = None
    session_s: float = DEFAULT_SESSION_S
    spool_after_s: float = SPOOL_AFTER_S
    max_spool_bytes: int = MAX_SPOOL_BYTES


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
    session_s = _number(url, options, "session_s", DEFAULT_SESSION_S, least=MIN_SESSION_S, most=MAX_SESSION_S)
    spool_after_s = _number(url, options, "spool_after_s", SPOOL_AFTER_S, least=0.01, most=60.0)
    max_spool_bytes = _number(url, options, "max_spool_bytes", MAX_SPOOL_BYTES, least=1024**2, most=1024**4)
    if options:
        raise _refused(
            url,
            f"knows only the options instance, session_s, spool_after_s and max_spool_bytes, not {', '.join(options)}",
        )
    servers = tuple(_server(url, one) for one in parts.netloc.split(",") if one)
    if not servers:
        raise _refused(url, "must name a server, such as kafka://127.0.0.1:9092")
    return KafkaAddress(
        servers=servers,
        instance=instance,
        session_s=session_s,
        spool_after_s=spool_after_s,
        max_spool_bytes=int(max_spool_bytes),
    )


def _number(url: str, options: dict[str, str], name: str, default: float, *, least: float, most: float) -> float:
    """Take an option out; `default` where it is not given."""
    text = options.pop(name, str(default))
    try:
        number = float(text)
    except ValueError:
        number = -1.0
    if not least <= number <= most:
        raise _refused(url, f"must have {name} from {least:.10g} to {most:.14g}, got {text!r}")
    return number


def _server(url: str, text: str) -> str:
    host, colon, port = text.rpartition(":")
    if not colon:
        return f"{text}:{_DEFAULT_PORT}"
    if not host or not port.isdecimal():
        raise _refused(url, f"must name servers as host:port, got {text!r}")
    return text


def _refused(url: str, problem: str) -> InvalidRequest:
    return InvalidRequest(f"event_bus_url {problem}: {url!r}", field="event_bus_url")
