"""Writes revisions into the store, those of several callers in one go. The last step of `indexing.py`.

A commit costs the store about as much for one document as for thirty. Whoever comes while a commit runs waits for the
next one, which then takes all that wait; whoever comes alone waits a moment for others that are on their way.
"""

import asyncio
from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from servicekit.errors import InvalidRequest
from servicekit.ports.vector_store import DocumentRevision, DocumentWriter

MAX_BATCH_CHUNKS = 1_000

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
    """`others_coming` says whether further callers are on their way, for which it pays to wait `linger_s`."""

    def __init__(self, store: DocumentWriter, *, others_coming: Callable[[], bool], linger_s: float = 0.1) -> None:
        self._store = store
        self._others_coming = others_coming
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
                if not request.done.done() and self._others_coming():
                    await asyncio.sleep(self._linger_s)
                while not request.done.done():
                    await self._write_next(index)
            return request.done.result()
        finally:
            if request in self._waiting[index]:
                self._waiting[index].remove(request)

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
