"""One replica: what it has to do, how fast it does it, and how well it is.

Pure but for the engine it carries; kept by `replica_pool.py`, weighed by `choosing.py`, told by `held_lease.py`.
"""

from dataclasses import dataclass

from servicekit.domain.generation import EngineLoad, ModelInfo
from servicekit.errors import BinnacleError, InvalidRequest, Overloaded
from servicekit.ports.engine import Engine
from services.generator.pool.health import Health, ReplicaState
from services.generator.pool.settings import PoolSettings
from services.generator.pool.speed import Backlog, DecayingRate

# What a request costs besides its prompt's tokens: a turn of the scheduler, in tokens of prefill.
OVERHEAD_TOKENS = 32
_LOAD_BELIEVED_S = 5.0
_MAX_CLOSED_S = 2.0
_ENOUGH = 5
_LATENESS_WEIGHT = 0.1


@dataclass(frozen=True, slots=True)
class ReplicaStatus:
    """A replica as ListModels tells it; queued and running requests are those that the engine told last."""

    address: str
    state: ReplicaState
    queued_requests: int
    running_requests: int
    outstanding_tokens: int
    expected_wait_s: float
    last_error_reason: str


class Replica:
    """One engine of a pool."""

    def __init__(self, engine: Engine, settings: PoolSettings) -> None:
        self.engine = engine
        self.address = engine.address
        self.health = Health(settings)
        self.backlog = Backlog()
        self.decoding = DecayingRate(half_life_s=20.0)
        self.info: ModelInfo | None = None
        self.fits = True
        self.retired = False
        self._settings = settings
        self._sent_s: dict[int, float] = {}
        self._decode_tokens = 0
        self.leases = 0
        self._closed_until_s = 0.0
        self._load: EngineLoad | None = None
        self._load_s = 0.0
        self._others_queued = 0
        self._lateness_s = 0.0
        self._lateness_known = 0

    @property
    def max_concurrent(self) -> int:
        """How many leases may be held there at once."""
        told = self.info.max_concurrent_requests if self.info is not None else 0
        return self._settings.max_concurrent or told or self._settings.unknown_concurrent

    @property
    def outstanding_tokens(self) -> int:
        """Tokens, in and out, that are still awaited."""
        return self.backlog.tokens + self._decode_tokens

    @property
    def opens_s(self) -> float:
        """Until when it is left alone after it refused for load, or was ejected."""
        return max(self._closed_until_s, self.health.ejected_until_s or 0.0)

    @property
    def first_token_s(self) -> float | None:
        """The usual time to first token; None until enough came."""
        return self._lateness_s if self._lateness_known >= _ENOUGH else None

    def forget_lateness(self) -> None:
        """Judge it by new first tokens only."""
        self._lateness_known = 0

    def has_place(self, now_s: float) -> bool:
        """Whether another lease may be held there now."""
        if self.health.state(now_s) is ReplicaState.PROBING:
            return self.leases == 0
        return self.leases < self.max_concurrent and now_s >= self._closed_until_s

    def expected_wait_s(self, tokens: int, now_s: float, *, tokens_per_s: float) -> float:
        """Until a prompt that takes so many tokens of prefill had its first token; `tokens_per_s` where none is known.

        At least as long as the one that waits longest has waited: a replica that hangs is not believed to be fast.
        """
        rate = self.backlog.tokens_per_s or tokens_per_s
        ahead = self.backlog.tokens + self._foreign_tokens(now_s, tokens)
        waited_s = now_s - next(iter(self._sent_s.values())) if self._sent_s else 0.0
        return max((ahead + tokens) / rate, waited_s)

    def place(self, key: int, prefill_tokens: int, decode_tokens: int, now_s: float) -> None:
        """A lease begins."""
        self.leases += 1
        self._sent_s[key] = now_s
        self.backlog.put(prefill_tokens, now_s)
        self._decode_tokens += decode_tokens

    def first_token(self, key: int, prefill_tokens: int, now_s: float) -> float:
        """The lease's first token came; returns how long it took."""
        took_s = now_s - self._sent_s.pop(key)
        self.backlog.take(prefill_tokens, now_s, served=True)
        self.health.succeeded(now_s)
        self._lateness_known += 1
        weight = max(_LATENESS_WEIGHT, 1 / self._lateness_known)
        self._lateness_s += weight * (took_s - self._lateness_s)
        return took_s

    def decoded(self, tokens: int) -> None:
        """So many of the tokens that were awaited are no longer."""
        self._decode_tokens -= tokens

    def leave(self, key: int, prefill_tokens: int, now_s: float) -> None:
        """A lease ends."""
        self.leases -= 1
        if self._sent_s.pop(key, None) is not None:
            self.backlog.take(prefill_tokens, now_s, served=False)

    def failed(self, error: BinnacleError, now_s: float) -> None:
        """Work there ended in an error; refusing for load closes it for a moment, a bad request is not its fault."""
        if isinstance(error, Overloaded):
            self._closed_until_s = now_s + min(error.retry_after_s, _MAX_CLOSED_S)
        elif not isinstance(error, InvalidRequest):
            self.health.failed(error, now_s)

    def told(self, load: EngineLoad, now_s: float) -> None:
        """What the engine says it has to do; what is not ours comes from others."""
        self._load, self._load_s = load, now_s
        self._others_queued = max(0, load.queued_requests - self.backlog.waiting)

    def status(self, now_s: float, *, tokens_per_s: float) -> ReplicaStatus:
        """For ListModels."""
        load = self._load or EngineLoad(0, 0)
        return ReplicaStatus(
            address=self.address,
            state=self.health.state(now_s) if self.fits else ReplicaState.EJECTED,
            queued_requests=load.queued_requests,
            running_requests=load.running_requests,
            outstanding_tokens=self.outstanding_tokens,
            expected_wait_s=self.expected_wait_s(OVERHEAD_TOKENS, now_s, tokens_per_s=tokens_per_s),
            last_error_reason=self.health.last_reason if self.fits else "MODEL_MISMATCH",
        )

    def _foreign_tokens(self, now_s: float, tokens: int) -> int:
        """Prompt tokens that others have queued there, each taken to be as long as this one or the mean of ours."""
        if not self._others_queued or now_s - self._load_s > _LOAD_BELIEVED_S:
            return 0
        mean = self.backlog.tokens // self.backlog.waiting if self.backlog.waiting else tokens
        return self._others_queued * mean
