"""The state store: small values with a time to live, shared by a service's replicas.

Implemented by `adapters.memory` (one process) and `adapters.redis`; holds claims, conversations, quotas.
"""

from typing import Protocol


class StateStore(Protocol):
    """Values by key; a value past its time to live, or evicted under memory pressure, is absent.

    Keys are `kind:tenant:rest`, so that an implementation can keep one tenant's flood from another's values. Every
    method may raise BackendUnavailable.
    """

    async def get(self, key: str) -> bytes | None:
        """The value, or None if absent."""
        ...

    async def put(self, key: str, value: bytes, *, ttl_s: float) -> None:
        """Write the value whatever was there; it lives `ttl_s` seconds from now."""
        ...

    async def swap(self, key: str, *, expected: bytes | None, value: bytes | None, ttl_s: float) -> bool:
        """Atomically replace `expected` by `value`; False, with nothing changed, if it holds else.

        None stands for absence: `expected=None` creates only, `value=None` deletes (and ignores `ttl_s`).
        """
        ...

    async def ping(self) -> None:
        """Return if the store answers now, else raise BackendUnavailable."""
        ...
