"""Whether a replica gets work: ejected after failures for a growing time, then tried with one request at a time.

Pure: time is given to it. Kept by `replica.py`; `replica_pool.py` decides how many may be out at once.
"""

import math
from enum import StrEnum

from servicekit.errors import BinnacleError
from services.generator.pool.settings import PoolSettings

_UNREACHABLE = "CONNECT"
_UNREACHABLE_POINTS = 3
_HALF_LIFE_S = 10.0
_LEAST_RECENT = 10.0
_FORGIVEN_AFTER_S = 60.0


class ReplicaState(StrEnum):
    """As ListModels tells it."""

    HEALTHY = "healthy"
    EJECTED = "ejected"
    PROBING = "probing"


class Health:
    """The record of one replica."""

    def __init__(self, settings: PoolSettings) -> None:
        self._settings = settings
        self._points = 0
        self._good = 0.0
        self._bad = 0.0
        self._counted_s = 0.0
        self._ejections = 0
        self._ejected_until_s: float | None = None
        self._well_since_s = 0.0
        self._answers = True
        self.last_reason = ""

    def state(self, now_s: float) -> ReplicaState:
        """At this time."""
        if self._ejected_until_s is None:
            return ReplicaState.HEALTHY
        if now_s < self._ejected_until_s or not self._answers:
            return ReplicaState.EJECTED
        return ReplicaState.PROBING

    @property
    def ejected_until_s(self) -> float | None:
        """When it may be tried again; None while it is not ejected."""
        return self._ejected_until_s

    def failure_share(self, now_s: float) -> float:
        """The share of recent work that failed, few tries counting as partly good."""
        self._fade(now_s)
        return self._bad / (self._good + self._bad + 2.0)

    def succeeded(self, now_s: float) -> None:
        """A first token came."""
        self._fade(now_s)
        self._good += 1
        self._points = 0
        self._answers = True
        if self._ejected_until_s is not None:
            self._ejected_until_s = None
            self._bad = 0.0
            self._well_since_s = now_s
            self.last_reason = ""
        elif self._ejections and now_s - self._well_since_s > _FORGIVEN_AFTER_S:
            self._ejections = 0

    def failed(self, error: BinnacleError, now_s: float) -> None:
        """Work there ended in an error of the replica's."""
        self._fade(now_s)
        self._bad += 1
        self._points += _UNREACHABLE_POINTS if error.reason == _UNREACHABLE else 1
        self.last_reason = error.reason
        if self.state(now_s) is ReplicaState.PROBING:
            self.eject(now_s, error.reason)

    def checked(self, error: BinnacleError | None) -> None:
        """A background check was answered, or not; nothing is tried before one was."""
        self._answers = error is None
        if error is not None:
            self.last_reason = error.reason

    @property
    def answers(self) -> bool:
        """Whether the last background check was answered."""
        return self._answers

    def is_failing(self, now_s: float) -> bool:
        """Whether its failures are reason enough to eject it."""
        if self._ejected_until_s is not None:
            return False
        self._fade(now_s)
        recent = self._good + self._bad
        mostly = recent >= _LEAST_RECENT and self._bad >= self._settings.failure_share * recent
        return mostly or self._points >= self._settings.failures_in_a_row

    def eject(self, now_s: float, reason: str) -> None:
        """No work for a time that doubles with every ejection."""
        longest = self._settings.max_ejected_s
        self._ejected_until_s = now_s + min(longest, self._settings.ejected_s * 2.0 ** min(self._ejections, 20))
        self._ejections += 1
        self._points = 0
        self.last_reason = reason

    def _fade(self, now_s: float) -> None:
        keep = math.pow(0.5, max(0.0, now_s - self._counted_s) / _HALF_LIFE_S)
        self._good *= keep
        self._bad *= keep
        self._counted_s = now_s
