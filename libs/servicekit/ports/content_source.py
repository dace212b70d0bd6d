"""A source of content: the bytes that an address names, for documents that are submitted by reference.

Implemented by `adapters.http`; used by the retriever.
"""

from dataclasses import dataclass
from typing import Protocol


@dataclass(frozen=True, slots=True)
class FetchedContent:
    """What stood at the address; `media_type` as its server says, with parameters, or empty."""

    content: bytes
    media_type: str


class ContentSource(Protocol):
    """Fetches."""

    async def fetch(self, uri: str, *, max_bytes: int) -> FetchedContent:
        """All bytes behind an address.

        Raises:
            InvalidRequest: the address is not allowed (FETCH_NOT_ALLOWED), there is nothing at it, it refuses, or it
                has more than `max_bytes` (FETCH_FAILED).
            BackendUnavailable, BackendTimeout: it cannot be reached now, fails, or takes too long.
        """
        ...
