"""Keeps aiokafka's log readable while a broker is away.

Called by whoever opens its clients: the event bus, and the analytics sink's bootstrap.
"""

import logging
import time

_QUIET_S = 30.0
_CHATTY = (
    "aiokafka",
    "aiokafka.conn",
    "aiokafka.consumer.fetcher",
    "aiokafka.consumer.group_coordinator",
    "aiokafka.producer.sender",
)


def quieten_aiokafka() -> None:
    """Warnings and errors only, the same one at most every 30 s: a broker that is away fails ten times a second."""
    for name in ("aiokafka", "aiokafka.conn", "aiokafka.client", "aiokafka.consumer", "aiokafka.producer"):
        logging.getLogger(name).setLevel(logging.WARNING)
    for name in _CHATTY:
        logger = logging.getLogger(name)
        if not any(isinstance(one, _Seldom) for one in logger.filters):
            logger.addFilter(_Seldom())


class _Seldom(logging.Filter):
    """Lets a message through once in 30 s, whatever its arguments."""

    def __init__(self) -> None:
        super().__init__()
        self._last_s: dict[str, float] = {}

    def filter(self, record: logging.LogRecord) -> bool:
        """Whether this one is due."""
        now_s, message = time.monotonic(), str(record.msg)
        if now_s - self._last_s.get(message, -_QUIET_S) < _QUIET_S:
            return False
        self._last_s[message] = now_s
        return True
