"""Operations: how far a submitted document is, kept for a day. Used by `server.py` and `events.py`."""

import json
from dataclasses import dataclass
from datetime import datetime

from servicekit.domain.ids import derive_id
from servicekit.errors import InvalidRequest, NotFound
from servicekit.ports.clock import Clock
from servicekit.ports.state_store import StateStore
from services.retriever.document import SubmittedDocument, hash_document
from services.retriever.preparing import IndexResult, Outcome

KEEP_S = 24 * 3600.0


@dataclass(frozen=True, slots=True)
class Operation:
    """Work that goes on after its call was answered; `result` once it is done."""

    operation_id: str
    create_time: datetime
    result: IndexResult | None = None


def operation_id_of(tenant: str, document: SubmittedDocument) -> str:
    """The same document handed in again is the same operation."""
    return derive_id("operation", tenant, document.document_id, hash_document(document))


class Operations:
    """Records operations per tenant."""

    def __init__(self, *, store: StateStore, clock: Clock) -> None:
        self._store = store
        self._clock = clock

    async def begin(self, tenant: str, operation_id: str, *, submit_time: datetime) -> Operation:
        """Record a submission: pending again, even if an earlier one was done."""
        operation = Operation(operation_id, submit_time)
        await self._put(tenant, operation)
        return operation

    async def finish(self, tenant: str, operation_id: str, result: IndexResult, *, submit_time: datetime) -> None:
        """Record what became of it."""
        await self._put(tenant, Operation(operation_id, submit_time, result))

    async def get(self, tenant: str, operation_id: str) -> Operation:
        """The operation as it stands.

        Raises:
            NotFound: never submitted by this tenant, or longer ago than a day or the last restart.
        """
        value = await self._store.get(_key(tenant, operation_id))
        if value is None:
            raise NotFound(
                f"no operation {operation_id!r}: it was never submitted, or is too long ago; GetDocument tells "
                "what is indexed",
                reason="OPERATION_NOT_FOUND",
            )
        return _decode(operation_id, value)

    async def _put(self, tenant: str, operation: Operation) -> None:
        await self._store.put(_key(tenant, operation.operation_id), _encode(operation), ttl_s=KEEP_S)


def _key(tenant: str, operation_id: str) -> str:
    return f"operation/{tenant}/{operation_id}"


def _encode(operation: Operation) -> bytes:
    value: dict[str, object] = {"create_time": operation.create_time.isoformat()}
    if (result := operation.result) is not None:
        value["result"] = {
            "document_id": result.document_id,
            "outcome": result.outcome,
            "revision": result.revision,
            "chunk_count": result.chunk_count,
            "content_hash": result.content_hash,
        }
        if result.error is not None:
            value["error"] = [result.error.message, result.error.field, result.error.reason]
    return json.dumps(value).encode()


def _decode(operation_id: str, raw: bytes) -> Operation:
    value = json.loads(raw)
    create_time = datetime.fromisoformat(value["create_time"])
    if "result" not in value:
        return Operation(operation_id, create_time)
    error = None
    if "error" in value:
        message, field, reason = value["error"]
        error = InvalidRequest(message, field=field, reason=reason)
    described = value["result"] | {"outcome": Outcome(value["result"]["outcome"])}
    return Operation(operation_id, create_time, IndexResult(**described, error=error))
