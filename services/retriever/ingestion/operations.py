"""Operations: how far a submitted document is, kept for a day. Used by `server.py` and `events.py`."""

import json
from collections.abc import Awaitable, Callable
from dataclasses import asdict, dataclass, replace
from datetime import datetime

import structlog

from servicekit.domain.ids import derive_id
from servicekit.errors import BinnacleError, InvalidRequest, NotFound
from servicekit.ports.clock import Clock
from servicekit.ports.state_store import StateStore
from services.retriever.ingestion.document import SubmittedDocument, hash_document
from services.retriever.ingestion.progress import Stage
from services.retriever.ingestion.quality import Flag
from services.retriever.ingestion.results import IndexResult, Outcome

KEEP_S = 24 * 3600.0
# Counts are written this often at most; stages always are.
TELL_EVERY_S = 0.5

log = structlog.get_logger()


@dataclass(frozen=True, slots=True)
class Operation:
    """Work that goes on after its call was answered; `result` once it is done, `stage` while it is under way."""

    operation_id: str
    create_time: datetime
    result: IndexResult | None = None
    stage: Stage | None = None
    chunks_done: int = 0
    chunks_total: int = 0


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

    def follow(self, tenant: str, operation_id: str, *, submit_time: datetime) -> "OperationProgress":
        """Who writes down how far it is."""

        async def put(operation: Operation) -> None:
            await self._put(tenant, operation)

        return OperationProgress(Operation(operation_id, submit_time), put=put, clock=self._clock)

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


class OperationProgress:
    """Writes progress into the operation, seldom enough to cost nothing; a store that is away is passed over."""

    def __init__(self, operation: Operation, *, put: Callable[[Operation], Awaitable[None]], clock: Clock) -> None:
        self._operation = operation
        self._put = put
        self._clock = clock
        self._told_s = clock.monotonic_s()

    async def enter(self, stage: Stage) -> None:
        """A stage begins."""
        log.debug("ingest.step", step=stage, operation_id=self._operation.operation_id)
        self._operation = replace(self._operation, stage=stage)
        await self._tell()

    async def count(self, done: int, total: int) -> None:
        """So many chunks are embedded, of so many."""
        self._operation = replace(self._operation, chunks_done=done, chunks_total=total)
        if self._clock.monotonic_s() - self._told_s >= TELL_EVERY_S:
            await self._tell()

    async def _tell(self) -> None:
        self._told_s = self._clock.monotonic_s()
        try:
            await self._put(self._operation)
        except BinnacleError as exc:
            log.warning("operation.progress_lost", error=exc.message)


def _key(tenant: str, operation_id: str) -> str:
    return f"operation/{tenant}/{operation_id}"


def _encode(operation: Operation) -> bytes:
    value: dict[str, object] = {
        "create_time": operation.create_time.isoformat(),
        "stage": operation.stage,
        "chunks": [operation.chunks_done, operation.chunks_total],
    }
    if (result := operation.result) is not None:
        value["result"] = asdict(replace(result, error=None))
        if result.error is not None:
            value["error"] = [result.error.message, result.error.field, result.error.reason]
    return json.dumps(value).encode()


def _decode(operation_id: str, raw: bytes) -> Operation:
    value = json.loads(raw)
    create_time = datetime.fromisoformat(value["create_time"])
    done, total = value["chunks"]
    stage = Stage(value["stage"]) if value["stage"] else None
    if "result" not in value:
        return Operation(operation_id, create_time, None, stage, done, total)
    error = None
    if "error" in value:
        message, field, reason = value["error"]
        error = InvalidRequest(message, field=field, reason=reason)
    told = value["result"]
    described = told | {"outcome": Outcome(told["outcome"]), "flags": tuple(Flag(one) for one in told["flags"])}
    return Operation(operation_id, create_time, IndexResult(**{**described, "error": error}), stage, done, total)
