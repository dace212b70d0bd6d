"""Brings one engine to its first token: another replica where one fails, a second beside one that is slow.

Called by `generating.py` for each engine of the chain; nothing has been released to the caller yet.
"""

import asyncio
from dataclasses import dataclass

from servicekit.errors import BackendTimeout, BackendUnavailable, BinnacleError, NotReady, Overloaded
from servicekit.ports.clock import Clock
from services.generator.accounting import Account
from services.generator.attempting import Trial
from services.generator.models import Backend
from services.generator.pool.lease import Choice
from services.generator.preparing import Prepared

# Any other error lies in the request, and no other replica or engine would help.
ENGINE_FAILURES = (BackendUnavailable, BackendTimeout, Overloaded, NotReady)
# Of what is left of the deadline, how much one attempt may wait while others could stand in.
_WAIT_SHARE = 0.6
# A hedge is worth nothing that has to wait for its own place.
_HEDGE_PLACE_WITHIN_S = 0.05


@dataclass(frozen=True, slots=True)
class Limits:
    """Until when on the clock all must be over (may be infinite), and whether nothing else stands in afterwards."""

    ends_s: float
    last: bool


class Beginning:
    """The tries at one engine."""

    def __init__(self, backend: Backend, prepared: Prepared, account: Account, *, limits: Limits, clock: Clock) -> None:
        self._backend = backend
        self._prepared = prepared
        self._account = account
        self._limits = limits
        self._clock = clock
        self._tried = set(account.tried(backend))

    async def first_token(self, trial: Trial) -> Trial:
        """The attempt whose first event came: `trial`, or one that took its place.

        Raises:
            BinnacleError: the last replica's failure; every attempt is over.
        """
        for turn in range(self._backend.engine.retries + 1):
            final = turn == self._backend.engine.retries
            try:
                return await self._hedged(trial, choice=Choice.RETRY if turn else None, final=final)
            except ENGINE_FAILURES:
                if final or not self._may_retry(trial):
                    raise
            trial = self._account.trial(self._backend)
        raise AssertionError("the last turn returns or raises")

    def _may_retry(self, trial: Trial) -> bool:
        """A full pool stays full, and a replica that failed is not asked again for the same request."""
        left_s = self._limits.ends_s - self._clock.monotonic_s()
        return trial.reached and left_s > 0 and self._backend.has_other_than(frozenset(self._tried))

    async def _hedged(self, trial: Trial, *, choice: Choice | None, final: bool) -> Trial:
        after_s = self._backend.pool.hedge_after_s()
        if after_s is None:
            await self._begin(trial, choice=choice, final=final)
            return trial
        return await self._race(trial, choice=choice, final=final, after_s=after_s)

    async def _race(self, first: Trial, *, choice: Choice | None, final: bool, after_s: float) -> Trial:
        """The faster of two, the second begun once the first is late; both fail: the first one's error."""
        async with asyncio.TaskGroup() as tasks:
            running = {tasks.create_task(self._outcome(first, choice=choice, final=final)): first}
            await asyncio.wait(running, timeout=after_s)
            late = first.reached and not any(task.done() for task in running)
            if late and self._backend.has_other_than(frozenset({*self._tried, first.address})):
                self._tried.add(first.address)
                second = self._account.trial(self._backend)
                running[tasks.create_task(self._outcome(second, choice=Choice.HEDGE, final=False))] = second
            winner = await _first_to_come(running)
            for task, trial in running.items():
                trial.lose()
                task.cancel()
        if winner is None:
            assert first.failure is not None
            raise first.failure
        return winner

    async def _outcome(self, trial: Trial, *, choice: Choice | None, final: bool) -> BinnacleError | None:
        """None once the first event came; a failure as a value, so that the other may go on."""
        try:
            await self._begin(trial, choice=choice, final=final)
        except BinnacleError as error:
            return error
        return None

    async def _begin(self, trial: Trial, *, choice: Choice | None, final: bool) -> None:
        left_s = max(0.0, self._limits.ends_s - self._clock.monotonic_s())
        engine = self._backend.engine
        # The last may wait as long as there is time: nothing better would come of giving it up.
        final = self._limits.last and (final or not self._backend.has_other_than(frozenset(self._tried)))
        patience_s = min(engine.first_token_s, left_s * _WAIT_SHARE)
        wait_s = min(left_s, engine.attempt_s) if final else patience_s
        hedges = choice is Choice.HEDGE
        try:
            await trial.begin(
                self._prepared,
                place_within_s=min(wait_s, _HEDGE_PLACE_WITHIN_S) if hedges else wait_s,
                first_token_within_s=wait_s,
                avoid=frozenset(self._tried),
                choice=choice,
            )
        except Overloaded:
            if hedges and not trial.reached:
                self._account.forget(trial)
            raise
        finally:
            self._tried.add(trial.address)


async def _first_to_come(running: dict[asyncio.Task[BinnacleError | None], Trial]) -> Trial | None:
    """The first that succeeds, None if all fail; those that are over are taken out."""
    while running:
        done, _ = await asyncio.wait(running, return_when=asyncio.FIRST_COMPLETED)
        came = [running.pop(task) for task in done if task.result() is None]
        for task in done:
            running.pop(task, None)
        if came:
            for other in came[1:]:
                other.lose()
                await other.close()
            return came[0]
    return None
