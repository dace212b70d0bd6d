"""A question with everything that shapes its answer, as the gateway's domain sees it.

Pure; made by `convert.py` and `openai_convert.py`, checked by `validation.py`, answered by `answering.py`.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum

from servicekit.domain.prompt import Message, Sampling

DEFAULT_NAME = "default"
DEFAULT_SAMPLING = Sampling()


class RetrievalMode(StrEnum):
    """How chunks are retrieved; ROUTE leaves it to the route."""

    ROUTE = "route"
    DENSE = "dense"
    SPARSE = "sparse"
    HYBRID = "hybrid"
    NONE = "none"


class Channel(StrEnum):
    """How an answer was asked for."""

    GRPC = "grpc"
    GRPC_STREAM = "grpc-stream"
    HTTP = "http"
    HTTP_STREAM = "http-stream"


@dataclass(frozen=True, slots=True)
class SealedFilter:
    """A metadata filter in the retriever's own encoding: bounded here, understood there."""

    encoded: bytes


@dataclass(frozen=True, slots=True)
class Question:
    """One question; `fingerprint` tells requests under one idempotency key apart, the key itself left out."""

    text: str
    channel: Channel = Channel.GRPC
    idempotency_key: str = ""
    fingerprint: bytes = b""
    conversation_id: str = ""
    history: tuple[Message, ...] = ()
    end_user_id: str = ""
    project: str = DEFAULT_NAME
    route: str = DEFAULT_NAME
    release: str = ""
    sticky_key: str = ""
    labels: Mapping[str, str] = field(default_factory=dict)
    sampling: Sampling = DEFAULT_SAMPLING
    training_consent: bool = False
    filter: SealedFilter | None = None
    top_k: int = 0
    model: str = ""
    retrieval_mode: RetrievalMode = RetrievalMode.ROUTE
    output_schema: str = ""
    want_logprobs: bool = False
    restore_pii: bool = False


@dataclass(frozen=True, slots=True)
class Asker:
    """Who asks: the tenant and subject of the credential, and whether it carries the scope `restore`."""

    tenant: str
    subject: str
    may_restore: bool = False
