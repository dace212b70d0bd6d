"""OpenAI's chat completion documents ↔ domain types. Pure; used by `openai_api.py` and `openai_stream.py`.

What the gateway can do and OpenAI's API has no word for stands in the field `binnacle`, of requests and answers alike.
"""

import hashlib
import json
from collections.abc import Mapping
from dataclasses import asdict
from typing import Any

from google.protobuf import json_format

from binnacle.type.v1 import chunk_pb2
from servicekit.domain.generation import FinishReason
from servicekit.domain.prompt import Message, Role, Sampling
from servicekit.errors import InvalidRequest
from services.gateway.answer import Answer
from services.gateway.openai_formats import output_schema_of
from services.gateway.question import DEFAULT_NAME, Channel, Question, RetrievalMode, SealedFilter
from services.gateway.validation import MAX_MESSAGES, shown

_ROLES = {"system": Role.SYSTEM, "developer": Role.SYSTEM, "user": Role.USER, "assistant": Role.ASSISTANT}
_FINISH_REASONS = {FinishReason.LENGTH: "length", FinishReason.CONTENT_FILTER: "content_filter"}
_UNDERSTOOD = frozenset(
    [
        "model",
        "messages",
        "stream",
        "stream_options",
        "temperature",
        "top_p",
        "max_tokens",
        "max_completion_tokens",
        "stop",
        "seed",
        "frequency_penalty",
        "presence_penalty",
        "user",
        "safety_identifier",
        "metadata",
        "response_format",
        "n",
        "binnacle",
    ]
)
_WITHOUT_EFFECT = frozenset(
    [
        "store",
        "parallel_tool_calls",
        "service_tier",
        "reasoning_effort",
        "prompt_cache_key",
        "prompt_cache_retention",
        "verbosity",
    ]
)
_ONLY_AS_DEFAULT: Mapping[str, tuple[Any, ...]] = {
    "n": (1,),
    "logprobs": (False,),
    "top_logprobs": (0,),
    "logit_bias": ({},),
    "tools": ([],),
    "functions": ([],),
    "tool_choice": ("none", "auto"),
    "function_call": ("none", "auto"),
    "modalities": (["text"],),
}
_EXTRA = frozenset(
    [
        "retrieval",
        "top_k",
        "filter",
        "route",
        "project",
        "conversation_id",
        "release",
        "sticky_key",
        "labels",
        "training_consent",
        "logprobs",
        "restore_pii",
    ]
)
_MODES: Mapping[bool | str, RetrievalMode] = {
    True: RetrievalMode.ROUTE,
    False: RetrievalMode.NONE,
    **{str(mode): mode for mode in RetrievalMode if mode is not RetrievalMode.ROUTE},
}


def question_of(document: Mapping[str, Any], *, idempotency_key: str) -> Question:
    """The question of a chat completion request: its last message, with the others as history.

    Raises:
        InvalidRequest: a field is unknown, of the wrong type, or asks for what is not supported.
    """
    _check_fields(document)
    extra = _typed(document, "binnacle", dict, {})
    _check_extra(extra)
    messages = _messages(document)
    text = messages[-1].content
    streamed = _typed(document, "stream", bool, False)
    return Question(
        text=text,
        channel=Channel.HTTP_STREAM if streamed else Channel.HTTP,
        idempotency_key=idempotency_key,
        fingerprint=_fingerprint(document) if idempotency_key else b"",
        history=messages[:-1],
        model=_typed(document, "model", str, ""),
        sampling=_sampling(document),
        end_user_id=_typed(document, "safety_identifier", str, "") or _typed(document, "user", str, ""),
        labels=_labels(document, extra),
        conversation_id=_extra(extra, "conversation_id", str, ""),
        project=_extra(extra, "project", str, "") or DEFAULT_NAME,
        route=_extra(extra, "route", str, "") or DEFAULT_NAME,
        release=_extra(extra, "release", str, ""),
        sticky_key=_extra(extra, "sticky_key", str, ""),
        top_k=_extra(extra, "top_k", int, 0),
        training_consent=_extra(extra, "training_consent", bool, False),
        filter=_filter(extra),
        retrieval_mode=_mode(extra),
        output_schema=output_schema_of(document.get("response_format")),
        want_logprobs=_extra(extra, "logprobs", bool, False),
        restore_pii=_extra(extra, "restore_pii", bool, False),
    )


def wants_usage(document: Mapping[str, Any]) -> bool:
    """Whether a stream ends with a usage chunk."""
    options = _typed(document, "stream_options", dict, {})
    return bool(options.get("include_usage", False))


def completion(answer: Answer, *, created_s: int) -> dict[str, Any]:
    """The document of a whole answer."""
    message = {"role": "assistant", "content": answer.text, "refusal": None}
    choice = {"index": 0, "message": message, "logprobs": None, "finish_reason": finish_reason(answer)}
    return {
        "id": answer.request_id,
        "object": "chat.completion",
        "created": created_s,
        "model": answer.model,
        "choices": [choice],
        "usage": usage(answer),
        "binnacle": provenance(answer),
    }


def finish_reason(answer: Answer) -> str:
    """OpenAI's word for why the answer ended."""
    return _FINISH_REASONS.get(answer.finish_reason, "stop")


def usage(answer: Answer) -> dict[str, Any]:
    """Tokens in OpenAI's words."""
    counted = answer.usage
    return {
        "prompt_tokens": counted.input_tokens,
        "completion_tokens": counted.output_tokens,
        "total_tokens": counted.input_tokens + counted.output_tokens,
        "prompt_tokens_details": {"cached_tokens": counted.cached_tokens},
    }


def provenance(answer: Answer) -> dict[str, Any]:
    """What OpenAI's document has no word for."""
    return {
        "request_id": answer.request_id,
        "outcome": str(answer.outcome),
        "citations": [asdict(citation) for citation in answer.citations],
        "chunks": [
            {
                "chunk_id": use.chunk.chunk_id,
                "document_id": use.chunk.document_id,
                "rank": use.chunk.rank,
                "score": use.chunk.score,
                "used": use.used,
            }
            for use in answer.chunks
        ],
        "verdicts": [
            {
                "surface": str(verdict.surface),
                "detector": verdict.detector,
                "action": str(verdict.action),
                "rule": verdict.rule,
                "score": verdict.score,
            }
            for verdict in answer.verdicts
        ],
        "degradations": [asdict(degradation) for degradation in answer.degradations],
        "cost_microusd": answer.cost.microusd,
        "price_version": answer.cost.price_version,
        "corpus_version": answer.corpus_version,
        "conversation_id": answer.conversation_id,
        "release": answer.release,
        "route": answer.route,
        "replayed": answer.replayed,
        "mean_logprob": answer.mean_logprob,
    }


def _check_fields(document: Mapping[str, Any]) -> None:
    for name, value in document.items():
        if name in _UNDERSTOOD and name not in _ONLY_AS_DEFAULT:
            continue
        if value is None or name in _WITHOUT_EFFECT:
            continue
        if name not in _ONLY_AS_DEFAULT:
            raise InvalidRequest(f"{shown(name)} is no field of this API; leave it out", field=name)
        if value not in _ONLY_AS_DEFAULT[name]:
            raise InvalidRequest(
                f"{name} is not supported beyond {_ONLY_AS_DEFAULT[name][0]!r}; leave it out", field=name
            )


def _check_extra(extra: Mapping[str, Any]) -> None:
    for name in extra:
        if name not in _EXTRA:
            valid = ", ".join(sorted(_EXTRA))
            raise InvalidRequest(
                f"binnacle.{shown(name)} is no field; valid: {valid}", field="binnacle", reason="UNKNOWN_FIELD"
            )


def _messages(document: Mapping[str, Any]) -> tuple[Message, ...]:
    given = _typed(document, "messages", list, [])
    if not 1 <= len(given) <= MAX_MESSAGES + 1:
        raise InvalidRequest(f"messages must hold 1 to {MAX_MESSAGES + 1} messages, got {len(given)}", field="messages")
    messages = tuple(_message(one, position) for position, one in enumerate(given))
    if messages[-1].role is not Role.USER:
        raise InvalidRequest("the last of messages must be the user's, which is answered", field="messages")
    return messages


def _message(given: Any, position: int) -> Message:
    field = f"messages[{position}]"
    if not isinstance(given, dict):
        raise InvalidRequest(f"{field} must be an object with role and content", field=field)
    role = _ROLES.get(str(given.get("role")))
    if role is None:
        raise InvalidRequest(
            f"{field}.role must be one of {', '.join(_ROLES)}, got {shown(str(given.get('role')))}",
            field=f"{field}.role",
        )
    return Message(role, _content(given.get("content"), f"{field}.content"))


def _content(given: Any, field: str) -> str:
    if isinstance(given, str):
        return given
    if isinstance(given, list) and all(
        isinstance(part, dict) and part.get("type") == "text" and isinstance(part.get("text"), str) for part in given
    ):
        return "".join(part["text"] for part in given)
    raise InvalidRequest(f"{field} must be a text, or a list of parts of type text", field=field)


def _sampling(document: Mapping[str, Any]) -> Sampling:
    stop = document.get("stop")
    texts = [stop] if isinstance(stop, str) else stop or []
    if not isinstance(texts, list) or not all(isinstance(text, str) for text in texts):
        raise InvalidRequest("stop must be a text or a list of texts", field="stop")
    limit = _typed(document, "max_completion_tokens", int, None)
    return Sampling(
        temperature=_number(document, "temperature"),
        top_p=_number(document, "top_p"),
        max_output_tokens=limit if limit is not None else _typed(document, "max_tokens", int, None),
        stop=tuple(texts),
        seed=_typed(document, "seed", int, None),
        frequency_penalty=_number(document, "frequency_penalty"),
        presence_penalty=_number(document, "presence_penalty"),
    )


def _labels(document: Mapping[str, Any], extra: Mapping[str, Any]) -> dict[str, str]:
    labels = {**_typed(document, "metadata", dict, {}), **_extra(extra, "labels", dict, {})}
    if not all(isinstance(value, str) for value in labels.values()):
        raise InvalidRequest("values of metadata must be texts", field="metadata")
    return labels


def _filter(extra: Mapping[str, Any]) -> SealedFilter | None:
    given = _extra(extra, "filter", dict, None)
    if given is None:
        return None
    try:
        parsed = json_format.ParseDict(given, chunk_pb2.Filter(), max_recursion_depth=32)
    except (json_format.ParseError, RecursionError) as exc:
        raise InvalidRequest(
            "binnacle.filter must be a binnacle.type.v1.Filter in protobuf's JSON form", field="binnacle.filter"
        ) from exc
    return SealedFilter(parsed.SerializeToString())


def _mode(extra: Mapping[str, Any]) -> RetrievalMode:
    given: Any = extra.get("retrieval", True)
    mode = _MODES.get(given) if isinstance(given, bool | str) else None
    if mode is None:
        raise InvalidRequest(
            "binnacle.retrieval must be true, false, dense, sparse, hybrid or none", field="binnacle.retrieval"
        )
    return mode


def _number(document: Mapping[str, Any], name: str) -> float | None:
    value = document.get(name)
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise InvalidRequest(f"{name} must be a number", field=name)
    try:
        return float(value)
    except OverflowError as exc:
        raise InvalidRequest(f"{name} must be a number of sensible size", field=name) from exc


def _typed(document: Mapping[str, Any], name: str, kind: type[Any], default: Any, prefix: str = "") -> Any:
    """The field's value, its default where it is absent or null."""
    value = document.get(name)
    if value is None:
        return default
    if not isinstance(value, kind) or (kind is int and isinstance(value, bool)):
        words = {str: "a text", int: "a whole number", bool: "true or false", list: "a list", dict: "an object"}
        raise InvalidRequest(f"{prefix}{name} must be {words[kind]}", field=f"{prefix}{name}")
    return value


def _extra(extra: Mapping[str, Any], name: str, kind: type[Any], default: Any) -> Any:
    return _typed(extra, name, kind, default, "binnacle.")


def _fingerprint(document: Mapping[str, Any]) -> bytes:
    """What tells requests apart but for restoring, which concerns how an answer is told: what is kept is redacted."""
    asked = dict(document)
    extra = dict(_typed(document, "binnacle", dict, {}))
    if extra.pop("restore_pii", None) is not None:
        asked = {**asked, "binnacle": extra} if extra else {name: asked[name] for name in asked if name != "binnacle"}
    return hashlib.sha256(json.dumps(asked, sort_keys=True).encode()).digest()
