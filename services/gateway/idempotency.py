"""Idempotency keys: the first request under a key does the work, a repeat gets its recorded answer.

Called by `answering.py` before any work, and by `publishing.py` once the record is safe. State stands in the
state store under the tenant, so that replicas agree.
"""

import hashlib
from collections.abc import Callable
from dataclasses import dataclass

from servicekit.errors import Conflict, InvalidRequest
from servicekit.ports.state_store import StateStore
from services.gateway.answer import Answer

RECORDED_TTL_S = 24 * 3600.0
_IN_FLIGHT = b"f"
_RECORDED = b"r"
_FINGERPRINT_BYTES = 32


@dataclass(frozen=True, slots=True)
class AnswerCodec:
    """How a recorded answer is kept; supplied by `convert.py`."""

    encode: Callable[[Answer], bytes]
    decode: Callable[[bytes], Answer]


class Claim:
    """A key held by one request while it is in flight."""

    def __init__(self, store: StateStore, key: str, value: bytes, codec: AnswerCodec) -> None:
        self._store = store
        self._key = key
        self._value = value
        self._codec = codec

    async def settle(self, answer: Answer) -> None:
        """Keep the answer for repeats; a claim that has expired meanwhile is left to its new holder."""
        recorded = _RECORDED + self._value[1 : 1 + _FINGERPRINT_BYTES] + self._codec.encode(answer)
        await self._store.swap(self._key, expected=self._value, value=recorded, ttl_s=RECORDED_TTL_S)

    async def abandon(self) -> None:
        """Free the key, because the request has no answer to keep."""
        await self._store.swap(self._key, expected=self._value, value=None, ttl_s=0)


class Idempotency:
    """Hands out claims, or the answers of settled ones."""

    def __init__(self, store: StateStore, *, codec: AnswerCodec) -> None:
        self._store = store
        self._codec = codec

    async def claim(
        self, key: str, *, tenant: str, fingerprint: bytes, request_id: str, in_flight_s: float
    ) -> Claim | Answer:
        """Claim the key for at most `in_flight_s`, or return the answer recorded under it.

        Raises:
            Conflict: the first request under the key is in flight.
            InvalidRequest: the key was used for another question.
        """
        digest = hashlib.blake2b(fingerprint, digest_size=_FINGERPRINT_BYTES).digest()
        value = _IN_FLIGHT + digest + request_id.encode()
        place = f"idempotency:{tenant}:{key}"
        if await self._store.swap(place, expected=None, value=value, ttl_s=in_flight_s):
            return Claim(self._store, place, value, self._codec)
        found = await self._store.get(place)
        if found is None:
            raise _in_flight(key)
        if found[1 : 1 + _FINGERPRINT_BYTES] != digest:
            raise InvalidRequest(
                f"question.idempotency_key {key!r} was used for another question; use a new key",
                field="question.idempotency_key",
                reason="IDEMPOTENCY_KEY_REUSED",
            )
        if found[:1] != _RECORDED:
            raise _in_flight(key)
        return self._codec.decode(found[1 + _FINGERPRINT_BYTES :])


def _in_flight(key: str) -> Conflict:
    return Conflict(
        f"the request with idempotency key {key!r} is in flight; repeat it once that has ended",
        reason="REQUEST_IN_FLIGHT",
    )
