"""Protobuf ↔ the guardrail's domain types, with the bounds that the proto states. Nothing else touches messages."""

from collections.abc import Sequence

from binnacle.events.v1 import guardrail_decided_pb2
from binnacle.guardrail.v1 import guardrail_service_pb2 as rpc
from binnacle.type.v1 import verdict_pb2
from servicekit.domain.verdict import Action, Surface, Verdict
from servicekit.errors import InvalidRequest
from services.guardrail.checking import (
    CheckContext,
    Decision,
    Judgement,
    RestoredTexts,
    RetrievedJudgements,
    RetrievedText,
)

MAX_TEXT_CHARS = 65_536
MAX_TEXTS = 100
MAX_TOTAL_CHARS = 1_000_000
MAX_RESTORED_TEXTS = 32
MAX_ID_CHARS = 128
MAX_CHUNK_ID_CHARS = 256
MAX_ROUTE_CHARS = 64
MAX_PIECE = 99_999
_HASH_CHARS = 64

_SURFACES = {
    Surface.INPUT: verdict_pb2.SURFACE_INPUT,
    Surface.RETRIEVED: verdict_pb2.SURFACE_RETRIEVED,
    Surface.OUTPUT: verdict_pb2.SURFACE_OUTPUT,
}
ACTIONS = {
    Action.ALLOW: verdict_pb2.ACTION_ALLOW,
    Action.FLAG: verdict_pb2.ACTION_FLAG,
    Action.REDACT: verdict_pb2.ACTION_REDACT,
    Action.BLOCK: verdict_pb2.ACTION_BLOCK,
}


def context_from(message: rpc.CheckContext, *, tenant: str, request_id: str) -> CheckContext:
    """What the check is part of; `request_id` is the credential's, for a request that names none."""
    for name, value, most in (
        ("context.request_id", message.request_id, MAX_ID_CHARS),
        ("context.conversation_id", message.conversation_id, MAX_ID_CHARS),
        ("context.route", message.route, MAX_ROUTE_CHARS),
    ):
        if len(value) > most:
            raise InvalidRequest(f"{name} must have at most {most} characters, got {len(value)}", field=name)
    return CheckContext(
        tenant=tenant,
        request_id=message.request_id or request_id,
        conversation_id=message.conversation_id,
        route=message.route,
    )


def input_from(message: rpc.CheckInputRequest) -> str:
    """The text to judge."""
    return _text("text", message.text)


def retrieved_from(message: rpc.CheckRetrievedRequest) -> tuple[RetrievedText, ...]:
    """The chunks' texts to judge."""
    if not 1 <= len(message.texts) <= MAX_TEXTS:
        raise InvalidRequest(f"texts must be 1 to {MAX_TEXTS}, got {len(message.texts)}", field="texts")
    texts = tuple(_retrieved(f"texts[{place}]", item) for place, item in enumerate(message.texts))
    _check_total("texts", [item.text for item in texts])
    return texts


def output_from(message: rpc.CheckOutputRequest) -> tuple[str, tuple[str, ...], int, bool]:
    """The text to judge, the chunks' texts, the place of the piece, and whether it is the whole answer."""
    chunk_texts = chunk_texts_from(message.chunk_texts)
    if not 0 <= message.piece <= MAX_PIECE:
        raise InvalidRequest(f"piece must be 0 to {MAX_PIECE}, got {message.piece}", field="piece")
    return _text("text", message.text), chunk_texts, message.piece, message.final and not message.piece


def chunk_texts_from(texts: Sequence[str]) -> tuple[str, ...]:
    """The chunks' texts that an answer is judged against."""
    if len(texts) > MAX_TEXTS:
        raise InvalidRequest(f"chunk_texts must be at most {MAX_TEXTS}, got {len(texts)}", field="chunk_texts")
    for place, text in enumerate(texts):
        _text(f"chunk_texts[{place}]", text)
    _check_total("chunk_texts", texts)
    return tuple(texts)


def restoring_from(message: rpc.RestoreTextRequest, context: CheckContext) -> tuple[str, ...]:
    """The texts to put values back into."""
    if not context.conversation_id and not context.request_id:
        raise InvalidRequest(
            "context must name a conversation_id or a request_id: whose values are meant", field="context"
        )
    if not 1 <= len(message.texts) <= MAX_RESTORED_TEXTS:
        raise InvalidRequest(f"texts must be 1 to {MAX_RESTORED_TEXTS}, got {len(message.texts)}", field="texts")
    return tuple(_bounded(f"texts[{place}]", text) for place, text in enumerate(message.texts))


def restored_to(restored: RestoredTexts) -> rpc.RestoreTextResponse:
    """The response of RestoreText."""
    return rpc.RestoreTextResponse(
        texts=restored.texts, restored_count=restored.restored, unknown_count=restored.unknown
    )


def input_to(judgement: Judgement) -> rpc.CheckInputResponse:
    """The response of CheckInput."""
    return rpc.CheckInputResponse(
        action=ACTIONS[judgement.action],
        verdicts=[verdict_to(verdict) for verdict in judgement.verdicts],
        text=judgement.text,
        policy_version=judgement.policy_version,
    )


def retrieved_to(judged: RetrievedJudgements) -> rpc.CheckRetrievedResponse:
    """The response of CheckRetrieved."""
    return rpc.CheckRetrievedResponse(
        judgements=[
            rpc.RetrievedJudgement(
                chunk_id=chunk_id,
                action=ACTIONS[judgement.action],
                verdicts=[verdict_to(verdict) for verdict in judgement.verdicts],
                redacted_text=judgement.text if judgement.action is Action.REDACT else "",
            )
            for chunk_id, judgement in judged.judgements
        ],
        policy_version=judged.policy_version,
    )


def output_to(judgement: Judgement) -> rpc.CheckOutputResponse:
    """The response of CheckOutput."""
    return rpc.CheckOutputResponse(
        action=ACTIONS[judgement.action],
        verdicts=[verdict_to(verdict) for verdict in judgement.verdicts],
        text=judgement.text,
        policy_version=judgement.policy_version,
        groundedness=judgement.groundedness,
    )


def decision_to(decision: Decision) -> guardrail_decided_pb2.GuardrailDecided:
    """The event's message; holds no text."""
    message = guardrail_decided_pb2.GuardrailDecided(
        request_id=decision.context.request_id,
        tenant_id=decision.context.tenant,
        surface=_SURFACES[decision.surface],
        action=ACTIONS[decision.action],
        verdicts=[verdict_to(verdict) for verdict in decision.verdicts],
        policy_version=decision.policy_version,
        text_chars=decision.text_chars,
        text_count=decision.text_count,
        duration_us=decision.duration_us,
        route=decision.context.route,
        piece=decision.piece,
    )
    message.decide_time.FromDatetime(decision.decide_time)
    return message


def verdict_to(verdict: Verdict) -> verdict_pb2.Verdict:
    """A verdict as it travels."""
    message = verdict_pb2.Verdict(
        surface=_SURFACES[verdict.surface],
        detector=verdict.detector,
        detector_version=verdict.detector_version,
        action=ACTIONS[verdict.action],
        score=verdict.score,
        rule=verdict.rule,
        message=verdict.message,
        policy_version=verdict.policy_version,
        chunk_id=verdict.chunk_id,
        shadow=verdict.shadow,
    )
    if verdict.span is not None:
        message.span.start = verdict.span.start
        message.span.end = verdict.span.end
    return message


def _retrieved(field: str, message: rpc.RetrievedText) -> RetrievedText:
    if not 1 <= len(message.chunk_id) <= MAX_CHUNK_ID_CHARS:
        raise InvalidRequest(
            f"{field}.chunk_id must have 1 to {MAX_CHUNK_ID_CHARS} characters, got {len(message.chunk_id)}",
            field=f"{field}.chunk_id",
        )
    if message.content_hash and len(message.content_hash) != _HASH_CHARS:
        raise InvalidRequest(
            f"{field}.content_hash must be {_HASH_CHARS} hexadecimal digits or empty, got "
            f"{len(message.content_hash)} characters",
            field=f"{field}.content_hash",
        )
    return RetrievedText(message.chunk_id, _text(f"{field}.text", message.text), cached=bool(message.content_hash))


def _bounded(field: str, text: str) -> str:
    if len(text) > MAX_TEXT_CHARS:
        raise InvalidRequest(
            f"{field} must have at most {MAX_TEXT_CHARS} characters, got {len(text)}; split longer text", field=field
        )
    return text


def _text(field: str, text: str) -> str:
    if not 1 <= len(text) <= MAX_TEXT_CHARS:
        raise InvalidRequest(
            f"{field} must have 1 to {MAX_TEXT_CHARS} characters, got {len(text)}; split longer text", field=field
        )
    return text


def _check_total(field: str, texts: Sequence[str]) -> None:
    total = sum(map(len, texts))
    if total > MAX_TOTAL_CHARS:
        raise InvalidRequest(
            f"{field} must have at most {MAX_TOTAL_CHARS} characters together, got {total}; send fewer", field=field
        )
