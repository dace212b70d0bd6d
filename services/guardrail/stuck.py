"""Counts the threads that hang in a detector, so that one that hangs is not given thread after thread.

Used by `examining.py` from any thread; one for the whole service.
"""

from collections import Counter
from threading import Lock

from services.guardrail.metrics import THREADS_STUCK

MOST_STUCK = 2


class StuckThreads:
    """A detector in which `at_most` threads hang is not asked until one of them returns."""

    def __init__(self, *, at_most: int = MOST_STUCK) -> None:
        self._at_most = at_most
        self._stuck: Counter[str] = Counter()
        self._lock = Lock()

    def add(self, name: str) -> None:
        """A thread hangs in it."""
        self._change(name, 1)

    def remove(self, name: str) -> None:
        """A thread has returned from it."""
        self._change(name, -1)

    def may_ask(self, name: str) -> bool:
        """Whether another thread may be risked."""
        return self._stuck[name] < self._at_most

    def _change(self, name: str, by: int) -> None:
        with self._lock:
            self._stuck[name] += by
            THREADS_STUCK.labels(name).set(self._stuck[name])
