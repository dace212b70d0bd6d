"""The vault: each conversation's pseudonyms, sealed in the state store, the same on every replica.

Used by `checking.py` for every redaction and by `server.py` to put values back. Nothing is given out before it is
kept: `update` does its work anew where another replica was faster. Where the store is away, or a conversation's
pseudonyms cannot be opened, redaction goes on with placeholders that agree on every replica and cannot be put back.
"""

import asyncio
import random
from collections import OrderedDict
from collections.abc import AsyncIterator, Callable, Iterable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Generic, TypeVar

import structlog

from servicekit.errors import BackendUnavailable
from servicekit.ports.clock import Clock
from servicekit.ports.state_store import StateStore
from services.guardrail.metrics import VAULT_FAILURES
from services.guardrail.pseudonyms import MAX_RESTORED_CHARS, Pseudonyms, Restored
from services.guardrail.sealing import Owner, SealBrokenError, Sealer

ATTEMPTS = 16
REST_S = 1.0
RENEWALS_PER_LIFE = 24
MAX_NOTED = 10_000
_JITTER_S = 0.002

log = structlog.get_logger()
Result = TypeVar("Result")


@dataclass(frozen=True, slots=True)
class Lifetimes:
    """How long pseudonyms live at least after they were last of use.

    They outlive the conversation whose texts hold their placeholders, never the other way round: a number given out
    anew while an old text still holds it would mean two things.
    """

    conversation_s: float
    request_s: float

    def renewal_s(self, owner: Owner) -> float:
        """Between two renewals, at least."""
        return (self.request_s if owner.of_request else self.conversation_s) / RENEWALS_PER_LIFE

    def kept_s(self, owner: Owner) -> float:
        """What the store is told: the life, and what may pass between a use and the renewal it brings, twice."""
        return self.renewal_s(owner) * (RENEWALS_PER_LIFE + 2)


@dataclass(slots=True)
class Opened:
    """An owner's pseudonyms and what they were read from; `place` is None where they are not kept."""

    owner: Owner
    pseudonyms: Pseudonyms
    place: str | None = None
    held: bytes | None = field(default=None, repr=False)


@dataclass(frozen=True, slots=True)
class Updated(Generic[Result]):
    """What the work made, and whether all of it can be put back later by who may."""

    result: Result = field(repr=False)
    whole: bool


class Vault:
    """`keys` newest first, of 256 bits each."""

    def __init__(self, store: StateStore, keys: Iterable[bytes], clock: Clock, *, lifetimes: Lifetimes) -> None:
        self._store = store
        self._sealer = Sealer(tuple(keys))
        self._clock = clock
        self._lifetimes = lifetimes
        self._locks: dict[Owner, tuple[asyncio.Lock, int]] = {}
        self._renewals: OrderedDict[Owner, float] = OrderedDict()
        self._rests_until_s = float("-inf")

    async def update(self, owner: Owner, work: Callable[[Pseudonyms], Result]) -> Updated[Result]:
        """Do the work with the owner's pseudonyms and keep what it added; done again where somebody was faster.

        So `work` must be pure but for the pseudonyms. An owner without a name has pseudonyms for this once.
        """
        if not owner.conversation:
            fresh = Pseudonyms(digest_key=self._sealer.digest_key(owner))
            return Updated(work(fresh), whole=False)
        async with self._alone(owner):
            try:
                return await self._update(owner, work)
            except BackendUnavailable as exc:
                self._note_failure(exc)
                away = self._away(owner)
                return Updated(work(away), whole=away.whole)

    async def restore(self, owner: Owner, texts: Iterable[str]) -> tuple[Restored, ...]:
        """The texts with the values put back that are remembered; it keeps them alive.

        Raises:
            BackendUnavailable: the state store is away, or the pseudonyms cannot be opened.
        """
        texts = tuple(texts)
        if not any("[" in text for text in texts):
            return tuple(Restored(text, 0, 0) for text in texts)
        try:
            opened = await self.open(owner)
            await self._renew(opened)
        except BackendUnavailable as exc:
            self._note_failure(exc)
            raise
        restored: list[Restored] = []
        room = MAX_RESTORED_CHARS
        for text in texts:
            restored.append(opened.pseudonyms.restore(text, max_chars=room))
            room -= len(restored[-1].text)
        return tuple(restored)

    async def touch(self, owner: Owner) -> None:
        """Keep the pseudonyms as long as their conversation goes on; asks the store about once an hour."""
        now_s = self._clock.monotonic_s()
        due_s = self._renewals.get(owner, float("-inf"))
        if now_s < due_s or self._resting or not owner.conversation:
            return
        self._renewals[owner] = now_s + self._lifetimes.renewal_s(owner)
        self._renewals.move_to_end(owner)
        if len(self._renewals) > MAX_NOTED:
            self._renewals.popitem(last=False)
        try:
            await self._renew(await self.open(owner))
        except BackendUnavailable as exc:
            self._note_failure(exc)

    async def forget(self, owner: Owner) -> None:
        """Erase the pseudonyms: from now on nothing given out before can be put back.

        Raises:
            BackendUnavailable: the state store is away, and they may still be there.
        """
        for place in self._sealer.places(owner):
            for _ in range(ATTEMPTS):
                held = await self._store.get(place)
                if held is None or await self._store.swap(place, expected=held, value=None, ttl_s=0):
                    break
            else:
                raise BackendUnavailable("the pseudonyms went on changing; repeat it", reason="VAULT_CONTENDED")

    async def open(self, owner: Owner) -> Opened:
        """The owner's pseudonyms as they are kept, or new ones.

        Raises:
            BackendUnavailable: the state store is away, or the seal is not one of ours.
        """
        if self._resting:
            raise BackendUnavailable("the state store was away a moment ago", reason="VAULT_UNAVAILABLE")
        places = self._sealer.places(owner)
        digest_key = self._sealer.digest_key(owner)
        for place in places:
            held = await self._store.get(place)
            if held is None:
                continue
            try:
                content = self._sealer.open(held, owner)
            except SealBrokenError as exc:
                raise BackendUnavailable(
                    "a conversation's pseudonyms do not open: is vault_key_file the same for every replica?",
                    reason="VAULT_SEAL_BROKEN",
                ) from exc
            return Opened(owner, Pseudonyms.decode(content, digest_key=digest_key), place, held)
        return Opened(owner, Pseudonyms(digest_key=digest_key), places[0])

    async def save(self, opened: Opened) -> bool:
        """Keep what was added; False: somebody was faster, and what was given since `open` must not go out.

        Raises:
            BackendUnavailable: the state store is away; nothing of it must go out either.
        """
        pseudonyms = opened.pseudonyms
        if opened.place is None or not pseudonyms.changed:
            return True
        sealed = self._sealer.seal(pseudonyms.encode(renewed_s=self._clock.now().timestamp()), opened.owner)
        ttl_s = self._lifetimes.kept_s(opened.owner)
        if not await self._store.swap(opened.place, expected=opened.held, value=sealed, ttl_s=ttl_s):
            return False
        opened.held = sealed
        pseudonyms.changed = False
        return True

    async def _update(self, owner: Owner, work: Callable[[Pseudonyms], Result]) -> Updated[Result]:
        for attempt in range(ATTEMPTS):
            opened = await self.open(owner)
            result = work(opened.pseudonyms)
            if await self.save(opened):
                return Updated(result, whole=opened.pseudonyms.whole)
            await asyncio.sleep(random.uniform(0, _JITTER_S * (attempt + 1)))  # noqa: S311  # no secret: it spreads
        raise BackendUnavailable("other replicas were faster each time", reason="VAULT_CONTENDED")

    async def _renew(self, opened: Opened) -> None:
        """Write what is kept again where a part of its life is over; whoever was faster has renewed it."""
        if opened.held is None:
            return
        age_s = self._clock.now().timestamp() - opened.pseudonyms.renewed_s
        if age_s > self._lifetimes.renewal_s(opened.owner):
            opened.pseudonyms.changed = True
            await self.save(opened)

    def _away(self, owner: Owner) -> Pseudonyms:
        return Pseudonyms(digest_key=self._sealer.digest_key(owner), numbered=False)

    @property
    def _resting(self) -> bool:
        """Whether the store failed a moment ago: a check need not wait for it to fail again."""
        return self._clock.monotonic_s() < self._rests_until_s

    def _note_failure(self, error: BackendUnavailable) -> None:
        if error.reason != "VAULT_UNAVAILABLE":
            log.warning("vault.unavailable", reason=error.reason, error=error.message)
            VAULT_FAILURES.labels(error.reason).inc()
        if not error.reason.startswith("VAULT_"):
            self._rests_until_s = self._clock.monotonic_s() + REST_S

    @asynccontextmanager
    async def _alone(self, owner: Owner) -> AsyncIterator[None]:
        """One at a time for each owner in this process, so that a question's many texts do not race each other."""
        lock, waiting = self._locks.get(owner, (asyncio.Lock(), 0))
        self._locks[owner] = (lock, waiting + 1)
        try:
            async with lock:
                yield
        finally:
            lock, waiting = self._locks[owner]
            if waiting == 1:
                del self._locks[owner]
            else:
                self._locks[owner] = (lock, waiting - 1)
