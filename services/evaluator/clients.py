"""The retriever behind the evaluator's `ChunkSource`: texts by content hash, in the name of the event's tenant."""

import re
from collections.abc import Mapping, Sequence

import grpc

from binnacle.retriever.v1 import retriever_service_pb2 as retriever
from binnacle.retriever.v1 import retriever_service_pb2_grpc as stubs
from servicekit.domain.score import Unmeasured
from servicekit.rpc.caller import Caller, acting_as
from servicekit.rpc.status import to_error
from services.evaluator.convert import texts_from

AUDIENCE = "retriever"
IDEMPOTENT = ("binnacle.retriever.v1.RetrieverService/BatchGetChunks",)
_SUBJECT = "evaluator"
_SCOPES = frozenset({"search"})
_MAX_HASHES = 256
_CONTENT_HASH = re.compile(r"[0-9a-f]{64}")


class RetrieverChunks:
    """Reads in batches of 256; what is no content hash at all is not found, without asking."""

    def __init__(self, channel: grpc.aio.Channel, *, deadline_s: float) -> None:
        self._stub = stubs.RetrieverServiceStub(channel)
        self._deadline_s = deadline_s

    async def fetch_texts(self, tenant: str, content_hashes: Sequence[str]) -> Mapping[str, str | Unmeasured]:
        """The text of each hash, or why there is none; see the port.

        Raises:
            BackendUnavailable, BackendTimeout, Overloaded: the retriever does not answer.
        """
        found: dict[str, str | Unmeasured] = dict.fromkeys(content_hashes, Unmeasured.CHUNK_NOT_FOUND)
        wanted = [key for key in found if _CONTENT_HASH.fullmatch(key)]
        with acting_as(Caller(tenant=tenant, subject=_SUBJECT, scopes=_SCOPES)):
            for start in range(0, len(wanted), _MAX_HASHES):
                request = retriever.BatchGetChunksRequest(content_hashes=wanted[start : start + _MAX_HASHES])
                try:
                    response = await self._stub.BatchGetChunks(request, timeout=self._deadline_s)
                except grpc.aio.AioRpcError as exc:
                    raise to_error(exc, AUDIENCE) from exc
                found.update(texts_from(response))
        return found
