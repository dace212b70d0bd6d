"""Writes revisions into the store, those of several callers in one go. The last step of `indexing.py`.

A commit costs the store about as much for one document as for thirty. Whoever comes while a commit runs waits for the
next one, which then takes all that wait; and while others are on their way a commit waits for them, within bounds.
"""

import asyncio
import time
from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from servicekit.errors import InvalidRequest
from servicekit.ports.vector_store import DocumentRevision, DocumentWriter

MAX_BATCH_CHUNKS = 1_000
# A batch of so many is worth a commit of its own: no one waits for more.
ENOUGH_CHUNKS = 256
LINGER_S = 1.0
# How often it is looked whether those on their way still are: some are refused, or found unchanged.
_LOOK_S = 0.05

# A tenant, and the model of the vectors.
_Index = tuple[str, str]


@dataclass(eq=False, slots=True)
class _Request:
    revisions: Sequence[DocumentRevision]
    done: asyncio.Future[int] = field(default_factory=lambda: asyncio.get_running_loop().create_future())

    @property
    def chunks(self) -> int:
        return sum(len(revision.chunks) for revision in self.revisions)


class GroupWriter:
    """`coming` counts the callers of a tenant who are on their way or wait here; others are waited for `linger_s`."""

    def __init__(self, store: DocumentWriter, *, coming: Callable[[str], int], linger_s: float = LINGER_S) -> None:
        self._store = store
        self._coming = coming
        self._linger_s = linger_s
        self._waiting: dict[_Index, list[_Request]] = defaultdict(list)
        self._locks: dict[_Index, asyncio.Lock] = defaultdict(asyncio.Lock)

    async def write(self, tenant: str, revisions: Sequence[DocumentRevision], *, model: str) -> int:
        """Make these the current revisions, all at one instant; returns the corpus version after it.

        Raises:
            InvalidRequest: metadata of these, not of others written along, clashes with what is stored.
            NotReady: the index is of another model.
            BackendUnavailable: the store is away; writing again is safe.
        """
        index = tenant, model
        request = _Request(revisions)
        self._waiting[index].append(request)
        try:
            async with self._locks[index]:
                if not request.done.done():
                    await self._gather(index)
                while not request.done.done():
                    await self._write_next(index)
            return request.done.result()
        finally:
            if request in self._waiting[index]:
                self._waiting[index].remove(request)

    async def _gather(self, index: _Index) -> None:
        """Wait for whoever is on the way, unless enough has come together."""
        tenant, _ = index
        end_s = time.monotonic() + self._linger_s
        while time.monotonic() < end_s:
            waiting = self._waiting[index]
            if len(waiting) >= self._coming(tenant) or sum(one.chunks for one in waiting) >= ENOUGH_CHUNKS:
                return
            await asyncio.sleep(min(_LOOK_S, self._linger_s))

    async def _write_next(self, index: _Index) -> None:
        """One commit of what has waited longest."""
        batch = _take(self._waiting[index])
        try:
            await self._commit(index, batch)
        except BaseException:
            # This caller is cancelled: the others' documents are the next caller's, who may write them again.
            self._waiting[index][:0] = [one for one in batch if not one.done.done()]
            raise

    async def _commit(self, index: _Index, batch: Sequence[_Request]) -> None:
        revisions = [revision for request in batch for revision in request.revisions]
        try:
            tenant, model = index
            version = await self._store.replace_documents(tenant, revisions, model=model)
        except InvalidRequest as exc:
            if len(batch) == 1:
                _fail(batch, exc)
                return
            # Whose fault it is shows when each is written alone.
            for request in batch:
                await self._commit(index, [request])
        except Exception as exc:  # noqa: BLE001  # every caller is told what happened
            _fail(batch, exc)
        else:
            for request in batch:
                if not request.done.done():
                    request.done.set_result(version)


def _take(waiting: list[_Request]) -> list[_Request]:
    """The first ones, at least one, as far as a batch holds."""
    count, chunks = 0, 0
    for request in waiting:
        chunks += request.chunks
        if count and chunks > MAX_BATCH_CHUNKS:
            break
        count += 1
    taken = waiting[:count]
    del waiting[:count]
    return taken


def _fail(batch: Sequence[_Request], error: Exception) -> None:
    for request in batch:
        if not request.done.done():
            request.done.set_exception(error)
            request.done.exception()  # noted as seen: its caller may be gone
