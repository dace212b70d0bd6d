"""Fetches the content of documents that were submitted by address. A step of `indexing.py`.

An address that fails for now is tried again a few times and then refused: it must not hold up what comes after it.
"""

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import replace

from servicekit.errors import BackendTimeout, BackendUnavailable, InvalidRequest
from servicekit.ports.content_source import ContentSource, FetchedContent
from services.retriever.formats.media_types import MEDIA_TYPES, TEXT, charset_of, essence_of
from services.retriever.ingestion.document import MAX_FETCHED_BYTES, check_fetchable
from services.retriever.ingestion.progress import Stage
from services.retriever.ingestion.work import Item, Work

PAUSES_S = (0.5, 2.0, 5.0)


class Fetcher:
    """Gives each document its bytes; `pauses_s` are those between the attempts."""

    def __init__(
        self,
        source: ContentSource,
        *,
        pauses_s: Sequence[float] = PAUSES_S,
        sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
    ) -> None:
        self._source = source
        self._pauses_s = pauses_s
        self._sleep = sleep

    async def __call__(self, work: Work) -> None:
        """Fetch what is to be fetched; a document whose address fails is refused."""
        wanted = [item for item in work.open() if item.document.fetch_uri]
        if wanted:
            await work.progress.enter(Stage.FETCHING)
        for item in wanted:
            try:
                check_fetchable(item.document, submitted=work.place is not None, path=item.path)
                _take(item, await self._fetch(item.document.fetch_uri))
            except InvalidRequest as exc:
                item.refuse(exc)

    async def _fetch(self, uri: str) -> FetchedContent:
        attempt = 0
        while True:
            try:
                return await self._source.fetch(uri, max_bytes=MAX_FETCHED_BYTES)
            except (BackendUnavailable, BackendTimeout) as exc:
                if attempt == len(self._pauses_s):
                    raise InvalidRequest(
                        f"fetch_uri failed {attempt + 1} times, the last time: {exc.message}. Submit it again later",
                        field="fetch_uri",
                        reason="FETCH_FAILED",
                    ) from exc
                await self._sleep(self._pauses_s[attempt])
                attempt += 1


def _take(item: Item, fetched: FetchedContent) -> None:
    """The document with its bytes; its media type is what its server says, where neither caller nor bytes say more."""
    document = item.document
    media_type = document.media_type
    said = essence_of(fetched.media_type)
    if not essence_of(media_type) and said and said != TEXT:
        if said not in MEDIA_TYPES:
            raise InvalidRequest(
                f"fetch_uri {document.fetch_uri[:200]!r} is of the media type {said[:100]!r}, which cannot be read: "
                f"name one of {', '.join(MEDIA_TYPES)}",
                field="fetch_uri",
                reason="UNKNOWN_MEDIA_TYPE",
            )
        media_type = fetched.media_type
    elif not charset_of(media_type) and (charset := charset_of(fetched.media_type)):
        # `text/plain` is what servers say of Markdown and CSV too: of it only the character set is believed.
        media_type = f"{media_type}; charset={charset}"
    item.document = replace(document, content=fetched.content, media_type=media_type)
