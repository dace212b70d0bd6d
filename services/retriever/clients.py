"""The guardrail over gRPC, behind `guarding.Guard`: texts are judged in the name of the document's tenant."""

from collections.abc import Iterable, Iterator, Mapping

import grpc

from binnacle.guardrail.v1 import guardrail_service_pb2 as guardrail
from binnacle.guardrail.v1.guardrail_service_pb2_grpc import GuardrailServiceStub
from binnacle.type.v1 import verdict_pb2
from servicekit.domain.ids import derive_id
from servicekit.domain.verdict import Action
from servicekit.errors import BackendUnavailable
from servicekit.rpc.caller import Caller, acting_as
from servicekit.rpc.status import to_error
from services.retriever.ingestion.guarding import Judgement

AUDIENCE = "guardrail"
IDEMPOTENT = ("binnacle.guardrail.v1.GuardrailService/CheckRetrieved",)
_CALLER = "retriever"
_SCOPES = frozenset({"guard"})
_MAX_TEXTS, _MAX_CHARS, _MAX_TEXT_CHARS = 100, 500_000, 65_536
_ACTIONS = {
    verdict_pb2.ACTION_ALLOW: Action.ALLOW,
    verdict_pb2.ACTION_FLAG: Action.FLAG,
    verdict_pb2.ACTION_REDACT: Action.REDACT,
    verdict_pb2.ACTION_BLOCK: Action.BLOCK,
}


class GuardClient:
    """Asks in calls of at most a hundred texts."""

    def __init__(self, channel: grpc.aio.Channel, *, deadline_s: float) -> None:
        self._stub = GuardrailServiceStub(channel)
        self._deadline_s = deadline_s

    async def judge(
        self, tenant: str, texts: Mapping[str, str], *, document_id: str
    ) -> tuple[Mapping[str, Judgement], str]:
        """A judgement for each text; see the port. Placeholders of one document are numbered together."""
        context = guardrail.CheckContext(conversation_id=derive_id("document", tenant, document_id))
        judged: dict[str, Judgement] = {}
        version = ""
        with acting_as(Caller(tenant=tenant, subject=_CALLER, scopes=_SCOPES)):
            for batch in _batches(texts.items()):
                found = [
                    guardrail.RetrievedText(chunk_id=key, content_hash=key, text=text[:_MAX_TEXT_CHARS])
                    for key, text in batch
                ]
                request = guardrail.CheckRetrievedRequest(texts=found, context=context)
                try:
                    response = await self._stub.CheckRetrieved(request, timeout=self._deadline_s)
                except grpc.aio.AioRpcError as exc:
                    raise to_error(exc, AUDIENCE) from exc
                if len(response.judgements) != len(batch):
                    raise BackendUnavailable(
                        f"guardrail judged {len(response.judgements)} of {len(batch)} texts",
                        reason="GUARDRAIL_INCOMPLETE",
                    )
                version = response.policy_version
                for (key, text), one in zip(batch, response.judgements, strict=True):
                    judged[key] = _judgement(one, text)
        return judged, version


def _judgement(message: guardrail.RetrievedJudgement, text: str) -> Judgement:
    # An action this code does not know is stronger than those it does.
    action = _ACTIONS.get(message.action, Action.BLOCK)
    detectors = tuple(dict.fromkeys(verdict.detector for verdict in message.verdicts))
    return Judgement(action, message.redacted_text if action is Action.REDACT else text, detectors)


def _batches(texts: Iterable[tuple[str, str]]) -> Iterator[list[tuple[str, str]]]:
    batch: list[tuple[str, str]] = []
    size = 0
    for key, text in texts:
        if batch and (len(batch) == _MAX_TEXTS or size + len(text) > _MAX_CHARS):
            yield batch
            batch, size = [], 0
        batch.append((key, text))
        size += len(text)
    if batch:
        yield batch
