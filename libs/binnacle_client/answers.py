"""Answers, documents, alerts and usage as the SDK hands them out: frozen, free of protobuf. Made by `convert.py`."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime


@dataclass(frozen=True, slots=True)
class QuestionOptions:
    """What shapes an answer; every field has the service's default.

    `output_schema` is a JSON schema as JSON that the answer must satisfy; `logprobs` asks for `Answer.mean_logprob`,
    `restore_pii` for what end users typed in the place of its placeholders (the key needs the scope `restore`).
    """

    conversation_id: str = ""
    idempotency_key: str = ""
    end_user_id: str = ""
    project: str = ""
    route: str = ""
    model: str = ""
    top_k: int = 0
    output_schema: str = ""
    logprobs: bool = False
    restore_pii: bool = False
    labels: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Citation:
    """A marker of the answer and what it points to; spans are `[start, end)` in characters."""

    marker: str
    answer_span: tuple[int, int]
    chunk_id: str
    document_id: str
    revision: int
    content_hash: str
    title: str
    source_uri: str


@dataclass(frozen=True, slots=True)
class Answer:
    """A whole answer. `outcome` is `answered`, `blocked` or `refused`; only an answered one keeps a schema.

    `mean_logprob` is the mean natural logarithm of its tokens' probabilities, None unless asked for and told.
    """

    request_id: str
    text: str
    outcome: str
    finish_reason: str
    citations: tuple[Citation, ...]
    input_tokens: int
    output_tokens: int
    cost_microusd: int
    model: str
    route: str
    verdicts: tuple[str, ...]
    degradations: tuple[str, ...]
    timings_us: Mapping[str, int]
    mean_logprob: float | None = None


@dataclass(frozen=True, slots=True)
class AnswerText:
    """A piece of a streamed answer, released by the guards."""

    text: str


@dataclass(frozen=True, slots=True)
class AnswerRetracted:
    """All pieces so far must be thrown away; `replacement` stands in their place."""

    reason: str
    replacement: str


AnswerEvent = AnswerText | AnswerRetracted | Answer


@dataclass(frozen=True, slots=True)
class FoundChunk:
    """A chunk of a search, best first."""

    rank: int
    score: float
    chunk_id: str
    document_id: str
    title: str
    source_uri: str
    heading_path: tuple[str, ...]
    text: str


@dataclass(frozen=True, slots=True)
class DocumentInput:
    """A document to index; one that is submitted may name where its content is fetched from instead (`fetch_uri`)."""

    document_id: str
    content: bytes = b""
    title: str = ""
    media_type: str = "text/plain"
    source_uri: str = ""
    metadata: Mapping[str, str | int | float | bool] = field(default_factory=dict)
    fetch_uri: str = ""


@dataclass(frozen=True, slots=True)
class IndexedDocument:
    """What became of a document: `created`, `updated`, `unchanged` or `refused` (then with a reason in UPPER_SNAKE).

    `flags` are what the quality checks noticed (`near_duplicate`), `duplicate_of` the document they mean.
    """

    document_id: str
    outcome: str
    revision: int
    chunk_count: int
    error: str
    reason: str = ""
    flags: tuple[str, ...] = ()
    duplicate_of: str = ""
    language: str = ""


@dataclass(frozen=True, slots=True)
class Operation:
    """How far a submitted document is: the stage while it is pending, the result once it is done."""

    operation_id: str
    stage: str = ""
    chunks_done: int = 0
    chunks_total: int = 0
    result: IndexedDocument | None = None


@dataclass(frozen=True, slots=True)
class DocumentState:
    """A document as it stands; `retract_time` if no search finds it any more."""

    document_id: str
    revision: int
    chunk_count: int
    title: str
    source_uri: str
    media_type: str
    content_hash: str
    index_time: datetime | None
    retract_time: datetime | None


@dataclass(frozen=True, slots=True)
class AffectedAnswer:
    """An answer that a document went into: with which of its revisions and texts, and whether it cites it."""

    request_id: str
    answer_time: datetime | None
    route: str
    end_user_id: str
    conversation_id: str
    revisions: tuple[int, ...]
    content_hashes: tuple[str, ...]
    cited: bool


@dataclass(frozen=True, slots=True)
class AffectedAnswers:
    """The newest answers that a document went into, and how many there are in all."""

    total: int
    answers: tuple[AffectedAnswer, ...]


@dataclass(frozen=True, slots=True)
class DriftAlert:
    """An alert as it is now."""

    alert_id: str
    state: str
    severity: str
    signal: str
    segment: str
    test: str
    statistic: float
    threshold: float
    effect: float
    reference_mean: float
    current_mean: float
    fire_time: datetime | None
    cursor: int


@dataclass(frozen=True, slots=True)
class UsageRow:
    """Usage of one group; `group` holds the values that were grouped by."""

    group: Mapping[str, str]
    requests: int
    errors: int
    blocked: int
    input_tokens: int
    output_tokens: int
    cost_microusd: int
    latency_p50_us: int
    latency_p95_us: int


@dataclass(frozen=True, slots=True)
class Finding:
    """What is wrong, or not known yet, with one producer's records in one partition of a topic.

    `what` is `missing`, `pending`, `dead letter`, `duplicate`, `unknown tail` or `open`. `ranges` holds the sequences,
    first and last included, at most 1,000 ranges; the two kinds that name no sequences say `after` which they begin.
    """

    what: str
    topic: str
    partition: int
    source: str
    producer: str
    count: int = 0
    ranges: tuple[tuple[int, int], ...] = ()
    after: int | None = None


@dataclass(frozen=True, slots=True)
class Completeness:
    """Whether everything accepted in a window is stored.

    `complete`: the window is whole. `unknown_tails` and `open` count producers, all else records.
    """

    complete: bool
    accepted: int
    stored: int
    duplicates: int
    missing: int
    pending: int
    dead_lettered: int
    unknown_tails: int
    open: int
    evicted: int
    findings: tuple[Finding, ...] = ()

    @property
    def verdict(self) -> str:
        """`whole`, `whole so far` while records or reports are on their way, or `not whole`."""
        if self.complete:
            return "whole"
        return "not whole" if self.missing or self.dead_lettered or self.unknown_tails else "whole so far"
