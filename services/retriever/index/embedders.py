"""Which embedder a tenant's calls go to: that of the model its index is pinned to.

Called by `searching.py` and by what indexes documents.

An index is searched and written with the model that made its vectors. While a second embedder is configured, indexes
of its model are moved to the first one's by `reembedding.py`; each switches at one instant, perhaps in another process,
so a call that finds the model gone looks again and is made once more.
"""

from collections.abc import Awaitable, Callable
from typing import TypeVar

from servicekit.errors import NotReady
from servicekit.ports.embedder import Embedder
from servicekit.ports.vector_store import DocumentReader
from services.retriever.index.write_gate import WriteGate

Result = TypeVar("Result")

MISMATCH = "EMBEDDING_MODEL_MISMATCH"
_MAX_REMEMBERED = 100_000


class TenantEmbedders:
    """The embedder of new indexes, and the one whose indexes are being moved."""

    def __init__(self, *, store: DocumentReader, current: Embedder, previous: Embedder | None = None) -> None:
        self.gate = WriteGate()
        self._store = store
        self._current = current
        self._known = {one.model.id: one for one in (current, previous) if one is not None}
        self._pinned: dict[str, str] = {}

    @property
    def current(self) -> Embedder:
        """The embedder of new indexes, and in the end of all."""
        return self._current

    async def write(self, tenant: str, work: Callable[[Embedder], Awaitable[Result]]) -> Result:
        """As `run`, for work that writes documents: it waits while the tenant's index is being switched."""
        async with self.gate.writing(tenant):
            return await self.run(tenant, work)

    async def run(self, tenant: str, work: Callable[[Embedder], Awaitable[Result]]) -> Result:
        """Do `work` with the tenant's embedder; once more, if its index switched meanwhile to another known model.

        `work` may be repeated from its begin: what it stored was refused as a whole.

        Raises:
            NotReady: the index is of a model that no embedder here has; says which setting would help.
        """
        embedder = await self._embedder_of(tenant)
        try:
            return await work(embedder)
        except NotReady as error:
            if error.reason != MISMATCH:
                raise
            again = self._known.get(await self._look(tenant), self._current)
            if again is embedder:
                raise await self._unknown_model(tenant) from error
        return await work(again)

    async def _embedder_of(self, tenant: str) -> Embedder:
        if len(self._known) == 1:
            return self._current
        model = self._pinned.get(tenant) or await self._look(tenant)
        return self._known.get(model, self._current)

    async def _look(self, tenant: str) -> str:
        """The model that the tenant's index is of now; empty before its first write."""
        model = (await self._store.describe(tenant)).model
        if len(self._pinned) >= _MAX_REMEMBERED:
            self._pinned.clear()
        if model:
            self._pinned[tenant] = model
        return model

    async def _unknown_model(self, tenant: str) -> NotReady:
        model = (await self._store.describe(tenant)).model
        here = ", ".join(repr(one) for one in self._known)
        return NotReady(
            f"this tenant's index holds vectors of {model!r}, and the retriever embeds with {here}: set "
            "BINNACLE_RETRIEVER__PREVIOUS_EMBEDDER_URL to the embedder of the index, and it is moved to the new one",
            reason=MISMATCH,
        )
