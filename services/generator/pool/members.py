"""The replicas of a pool: who they are, that they serve one model, and how many may be out at once.

Pure; kept by `replica_pool.py`, changed by `polling.py` as replicas come, go and answer.
"""

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import replace

import structlog

from servicekit.domain.generation import ModelInfo
from servicekit.ports.engine import Engine
from services.generator.pool.health import ReplicaState
from services.generator.pool.lease import Work
from services.generator.pool.metrics import EJECTIONS
from services.generator.pool.replica import Replica
from services.generator.pool.settings import PoolSettings

_LEAST_SLOW_S = 1.0

log = structlog.get_logger()


class Members:
    """Replicas by address, in the order in which they came."""

    def __init__(self, engines: Sequence[Engine], settings: PoolSettings, *, pool: str) -> None:
        self._settings = settings
        self._pool = pool
        self._replicas = {engine.address: Replica(engine, settings) for engine in engines}
        self._identity: tuple[str, str] | None = None

    def __iter__(self) -> Iterator[Replica]:
        return iter(tuple(self._replicas.values()))

    def __len__(self) -> int:
        return len(self._replicas)

    def add(self, engine: Engine) -> Replica:
        """A replica came."""
        replica = Replica(engine, self._settings)
        self._replicas[replica.address] = replica
        return replica

    def remove(self, replica: Replica) -> None:
        """A replica went; leases there live on."""
        replica.retired = True
        self._replicas.pop(replica.address, None)
        self.agree()

    def serving(self) -> list[Replica]:
        """Those that may be asked by what they serve: the pool's model, once any has told its own."""
        known = any(replica.info is not None for replica in self)
        return [replica for replica in self if replica.fits and (replica.info is not None or not known)]

    def candidates(self, avoid: frozenset[str], now_s: float) -> list[Replica]:
        """Those with a free place among the healthy; those to avoid, and the ejected, only where nothing else is."""
        serving = self.serving()
        healthy = [replica for replica in serving if replica.health.state(now_s) is ReplicaState.HEALTHY]
        liked = [replica for replica in healthy if replica.address not in avoid]
        if not liked:
            liked = [replica for replica in self.probing(now_s) if replica.address not in avoid]
        return [replica for replica in liked or healthy or serving if replica.has_place(now_s)]

    def probing(self, now_s: float) -> list[Replica]:
        """Those that may get one request to show that they are well again."""
        return [
            replica
            for replica in self.serving()
            if replica.health.state(now_s) is ReplicaState.PROBING and replica.has_place(now_s)
        ]

    def has_room(self, now_s: float) -> bool:
        """Whether any work might find a place."""
        return any(replica.has_place(now_s) for replica in self)

    def places(self, now_s: float) -> int:
        """Leases that the healthy may hold at once; at least 1."""
        healthy = [replica for replica in self.serving() if replica.health.state(now_s) is ReplicaState.HEALTHY]
        return max(1, sum(replica.max_concurrent for replica in healthy))

    def opens_s(self, now_s: float) -> float | None:
        """When the next of those that are closed or ejected may be tried; None: none is."""
        later = [replica.opens_s for replica in self if replica.opens_s > now_s]
        return min(later, default=None)

    def judge_failures(self, replica: Replica, now_s: float) -> None:
        """Eject it if it fails too much, unless too many are out."""
        if replica.health.is_failing(now_s):
            self._eject(replica, replica.health.last_reason, now_s)

    def judge_speed(self, replica: Replica, now_s: float) -> None:
        """Eject it if its first tokens come far later than the others'."""
        mine = replica.first_token_s
        others = sorted(
            other.first_token_s for other in self if other is not replica and other.first_token_s is not None
        )
        if mine is None or not others or mine < _LEAST_SLOW_S:
            return
        if mine > self._settings.slow_factor * others[len(others) // 2]:
            self._eject(replica, "SLOW", now_s)
            replica.forget_lateness()

    def agree(self) -> None:
        """Keep out whoever serves another model or revision than most do."""
        told = Counter((one.info.model, one.info.revision) for one in self if one.info is not None)
        if not told:
            return
        most = max(told.values())
        if self._identity is None or told[self._identity] < most:
            self._identity = next(identity for identity, count in told.items() if count == most)
        for replica in self:
            fits = replica.info is None or (replica.info.model, replica.info.revision) == self._identity
            if replica.fits and not fits and replica.info is not None:
                log.warning(
                    "pool.replica_serves_another_model",
                    pool=self._pool,
                    address=replica.address,
                    model=replica.info.model,
                    revision=replica.info.revision,
                    expected_model=self._identity[0],
                    expected_revision=self._identity[1],
                )
            replica.fits = fits

    def info(self) -> ModelInfo | None:
        """What all of them can do: the narrowest limits, places summed; None while none has told."""
        infos = [replica.info for replica in self.serving() if replica.info is not None]
        if not infos:
            return None
        places = [info.max_concurrent_requests for info in infos]
        return replace(
            infos[0],
            max_input_tokens=min(info.max_input_tokens for info in infos),
            max_total_tokens=min(info.max_total_tokens for info in infos),
            max_concurrent_requests=sum(places) if all(places) else 0,
        )

    def _eject(self, replica: Replica, reason: str, now_s: float) -> None:
        serving = self.serving()
        out = sum(one.health.ejected_until_s is not None for one in serving)
        if out + 1 > self._settings.max_ejected_share * len(serving):
            return
        replica.health.eject(now_s, reason)
        EJECTIONS.labels(self._pool, "slow" if reason == "SLOW" else "failures").inc()
        log.warning("pool.replica_ejected", pool=self._pool, address=replica.address, reason=reason)


def tokens_of(work: Work) -> int:
    """What fairness counts."""
    return work.input_tokens + work.output_tokens
