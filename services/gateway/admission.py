"""Bounds how many answers are worked on at once. Pure; entered by `answering.py` for every request."""

from collections.abc import Iterator
from contextlib import contextmanager

from servicekit.errors import Overloaded


class Admission:
    """Counts answers in flight; past the bound a request is refused at once rather than queued."""

    def __init__(self, *, max_in_flight: int, retry_after_s: float = 1.0) -> None:
        self._max_in_flight = max_in_flight
        self._retry_after_s = retry_after_s
        self.in_flight = 0

    @contextmanager
    def slot(self) -> Iterator[None]:
        """Hold one place.

        Raises:
            Overloaded: all places are taken.
        """
        if self.in_flight >= self._max_in_flight:
            raise Overloaded(
                f"{self._max_in_flight} answers are in flight, which is the bound; "
                f"try again in {self._retry_after_s:g} s",
                retry_after_s=self._retry_after_s,
                reason="TOO_MANY_ANSWERS",
            )
        self.in_flight += 1
        try:
            yield
        finally:
            self.in_flight -= 1
