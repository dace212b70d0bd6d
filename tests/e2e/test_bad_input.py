"""Bad input at every RPC: the right status, with field, value and fix; and the next request works."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import grpc
import pytest
from google.protobuf.message import Message
from google.rpc import error_details_pb2
from grpc_status import rpc_status

from binnacle.analytics.v1 import analytics_service_pb2 as analytics
from binnacle.drift_monitor.v1 import drift_monitor_service_pb2 as drift
from binnacle.evaluator.v1 import evaluator_service_pb2 as evaluator
from binnacle.gateway.v1 import gateway_service_pb2 as gateway
from binnacle.generator.v1 import generator_service_pb2 as generator
from binnacle.guardrail.v1 import guardrail_service_pb2 as guardrail
from binnacle.retriever.v1 import retriever_service_pb2 as retriever
from binnacle.type.v1 import chunk_pb2, generation_pb2, text_pb2
from binnacle_client.connection import SERVICES
from tests.e2e.conftest import RunningStack

INVALID = grpc.StatusCode.INVALID_ARGUMENT
NOT_FOUND = grpc.StatusCode.NOT_FOUND
_LONG = "x" * 70_000
_STREAMS = {"StreamAnswer", "GenerateAnswer", "SubscribeAlerts"}


@dataclass(frozen=True)
class Case:
    """A request that must be refused; `field` stands in the violation."""

    service: str
    rpc: str
    request: Message
    status: grpc.StatusCode = INVALID
    field: str = ""


def _question(**fields: Any) -> gateway.Question:
    return gateway.Question(**{"text": "When is bread baked?", **fields})


def _gateway(field: str, status: grpc.StatusCode = INVALID, **fields: Any) -> Iterator[Case]:
    question = _question(**fields)
    yield Case("gateway", "AnswerQuestion", gateway.AnswerQuestionRequest(question=question), status, field)
    yield Case("gateway", "StreamAnswer", gateway.StreamAnswerRequest(question=question), status, field)


def _search(field: str, **fields: Any) -> Case:
    return Case(
        "retriever", "SearchChunks", retriever.SearchChunksRequest(**{"query": "bread", **fields}), INVALID, field
    )


def _unknown_field() -> chunk_pb2.Filter:
    value = chunk_pb2.MetadataValue(string_value="x")
    comparison = chunk_pb2.Comparison(field="nonesuch", operator=chunk_pb2.OPERATOR_EQUAL, values=[value])
    return chunk_pb2.Filter(comparison=comparison)


def _document(**fields: Any) -> retriever.Document:
    return retriever.Document(**{"document_id": "d", "content": b"Anchors rust.", **fields})


CASES = [
    *_gateway("text", text=""),
    *_gateway("text", text="   \n"),
    *_gateway("text", text=_LONG),
    *_gateway("top_k", top_k=-1),
    *_gateway("top_k", top_k=10_000),
    *_gateway("temperature", sampling=generation_pb2.Sampling(temperature=-3)),
    *_gateway("max_output_tokens", sampling=generation_pb2.Sampling(max_output_tokens=2**31 - 1)),
    *_gateway("idempotency_key", idempotency_key="k" * 500),
    *_gateway("labels", labels={f"k{n}": "v" for n in range(50)}),
    *_gateway("history", history=[text_pb2.Message(role=text_pb2.ROLE_UNSPECIFIED, content="hi")]),
    *_gateway("route", route="nonesuch"),
    *_gateway("filter", filter=_unknown_field()),
    *_gateway("", NOT_FOUND, model="nonesuch"),
    Case("gateway", "RecordFeedback", gateway.RecordFeedbackRequest(), INVALID, "request_id"),
    Case(
        "gateway",
        "RecordFeedback",
        gateway.RecordFeedbackRequest(request_id="forged", kind=gateway.FEEDBACK_KIND_RATING, rating=3),
        NOT_FOUND,
    ),
    Case(
        "gateway",
        "RecordFeedback",
        gateway.RecordFeedbackRequest(request_id="forged", kind=gateway.FEEDBACK_KIND_RATING, rating=99),
        INVALID,
        "rating",
    ),
    _search("query", query=""),
    _search("query", query=_LONG),
    _search("top_k", top_k=-5),
    _search("top_k", top_k=101),
    _search("dense_weight", dense_weight=float("nan")),
    _search("filter", filter=_unknown_field()),
    Case("retriever", "IndexDocuments", retriever.IndexDocumentsRequest(), INVALID, "documents"),
    Case("retriever", "SubmitDocument", retriever.SubmitDocumentRequest(), INVALID, "document"),
    Case(
        "retriever",
        "SubmitDocument",
        retriever.SubmitDocumentRequest(document=_document(content=bytes(range(256)) * 4)),
        INVALID,
        "content",
    ),
    Case("retriever", "GetOperation", retriever.GetOperationRequest(operation_id="nonesuch"), NOT_FOUND),
    Case("retriever", "BatchGetChunks", retriever.BatchGetChunksRequest(), INVALID, "content_hashes"),
    Case(
        "retriever",
        "BatchGetChunks",
        retriever.BatchGetChunksRequest(content_hashes=["not a hash"]),
        INVALID,
        "content_hashes",
    ),
    Case("retriever", "GetDocument", retriever.GetDocumentRequest(document_id="nonesuch"), NOT_FOUND),
    Case("retriever", "GetDocument", retriever.GetDocumentRequest(), INVALID, "document_id"),
    Case("retriever", "DeleteDocument", retriever.DeleteDocumentRequest(document_id="nonesuch"), NOT_FOUND),
    Case("generator", "GenerateAnswer", generator.GenerateAnswerRequest(), INVALID, "question"),
    Case("generator", "GenerateAnswer", generator.GenerateAnswerRequest(question="Q", model="nonesuch"), NOT_FOUND),
    Case("generator", "CountTokens", generator.CountTokensRequest(text="t", model="nonesuch"), NOT_FOUND),
    Case("guardrail", "CheckInput", guardrail.CheckInputRequest(), INVALID, "text"),
    Case("guardrail", "CheckInput", guardrail.CheckInputRequest(text=_LONG), INVALID, "text"),
    Case("guardrail", "CheckRetrieved", guardrail.CheckRetrievedRequest(), INVALID, "texts"),
    Case("guardrail", "CheckOutput", guardrail.CheckOutputRequest(), INVALID, "text"),
    Case("evaluator", "ScoreAnswer", evaluator.ScoreAnswerRequest(answer="A"), INVALID, "question"),
    Case(
        "evaluator",
        "ScoreAnswer",
        evaluator.ScoreAnswerRequest(question="Q", answer="A", metrics=["nonesuch"]),
        INVALID,
        "metrics",
    ),
    Case("drift_monitor", "ListAlerts", drift.ListAlertsRequest(page_size=-1), INVALID, "page_size"),
    Case("drift_monitor", "ListAlerts", drift.ListAlertsRequest(page_token="rubbish"), INVALID, "page_token"),
    Case("drift_monitor", "AcknowledgeAlert", drift.AcknowledgeAlertRequest(alert_id="nonesuch"), NOT_FOUND),
    Case("drift_monitor", "AcknowledgeAlert", drift.AcknowledgeAlertRequest(), INVALID, "alert_id"),
    Case("drift_monitor", "SubscribeAlerts", drift.SubscribeAlertsRequest(after_cursor=-1), INVALID, "after_cursor"),
    Case("drift_monitor", "GetDriftReport", drift.GetDriftReportRequest(segment="nonesuch=1"), NOT_FOUND),
    Case("analytics", "GetInteraction", analytics.GetInteractionRequest(), INVALID, "request_id"),
    Case("analytics", "GetInteraction", analytics.GetInteractionRequest(request_id="nonesuch"), NOT_FOUND),
    Case("analytics", "ListInteractions", analytics.ListInteractionsRequest(page_size=9_999), INVALID, "page_size"),
    Case(
        "analytics", "ListInteractions", analytics.ListInteractionsRequest(page_token="rubbish"), INVALID, "page_token"
    ),
    Case("analytics", "GetUsage", analytics.GetUsageRequest(group_by=[0]), INVALID, "group_by"),
    Case("analytics", "GetCompleteness", analytics.GetCompletenessRequest(topic="nonesuch"), INVALID, "topic"),
]
# One request of each service that works: asked after every refusal.
_WORKING: dict[str, tuple[str, Message]] = {
    "gateway": ("AnswerQuestion", gateway.AnswerQuestionRequest(question=_question())),
    "retriever": ("SearchChunks", retriever.SearchChunksRequest(query="bread")),
    "generator": ("CountTokens", generator.CountTokensRequest(text="bread")),
    "guardrail": ("CheckInput", guardrail.CheckInputRequest(text="bread")),
    "evaluator": ("ScoreAnswer", evaluator.ScoreAnswerRequest(question="Q", answer="A [1]", chunk_texts=["A"])),
    "drift_monitor": ("ListAlerts", drift.ListAlertsRequest()),
    "analytics": ("GetUsage", analytics.GetUsageRequest()),
}
# Where the request above begins with a number: one that begins with text.
_TEXT_FIRST = {"drift_monitor": "AcknowledgeAlert", "analytics": "GetInteraction"}
Call = Callable[..., bytes]


@pytest.fixture
def call(stack: RunningStack) -> Iterator[Call]:
    """Calls a method with raw bytes, so that nothing on this side stops bad ones; streams are read to the end."""
    channels = {name: grpc.insecure_channel(stack.connection.target(name)) for name in SERVICES}

    def call(service: str, rpc: str, body: bytes, *, key: str | None = None, timeout_s: float = 20) -> bytes:
        method = f"/binnacle.{service}.v1.{service.title().replace('_', '')}Service/{rpc}"
        metadata = (("authorization", f"Bearer {stack.connection.api_key if key is None else key}"),)
        if rpc in _STREAMS:
            return b"".join(channels[service].unary_stream(method)(body, timeout=timeout_s, metadata=metadata))
        response: bytes = channels[service].unary_unary(method)(body, timeout=timeout_s, metadata=metadata)
        return response

    yield call
    for channel in channels.values():
        channel.close()


def _refused(call: Call, *arguments: Any, **options: Any) -> grpc.RpcError:
    with pytest.raises(grpc.RpcError) as refused:
        call(*arguments, **options)
    return refused.value


def _details(error: grpc.RpcError, kind: type[Message]) -> list[Any]:
    status = rpc_status.from_call(error)
    found = []
    for detail in status.details if status else ():
        message = kind()
        if detail.Unpack(message):
            found.append(message)
    return found


@pytest.mark.parametrize("case", CASES, ids=lambda case: f"{case.rpc}-{case.status.name}-{case.field}")
def test_bad_request_names_the_field_and_the_next_one_works(call: Call, case: Case) -> None:
    """The status is the table's, ErrorInfo names the service, the field is named, the next request works."""
    error = _refused(call, case.service, case.rpc, case.request.SerializeToString())
    assert error.code() is case.status, error.details()
    (info,) = _details(error, error_details_pb2.ErrorInfo)
    assert info.domain == f"{case.service}.binnacle"
    assert info.reason.isupper()
    if case.field:
        fields = [v.field for bad in _details(error, error_details_pb2.BadRequest) for v in bad.field_violations]
        assert any(case.field in field for field in fields), (fields, error.details())
    rpc, request = _WORKING[case.service]
    call(case.service, rpc, request.SerializeToString())


@pytest.mark.parametrize("service", SERVICES)
def test_wrong_utf8_is_an_invalid_argument(call: Call, service: str) -> None:
    """Bytes that are no UTF-8 in a text field, and bytes that are no message, are the caller's fault."""
    rpc, request = _WORKING[service]
    for body in (b"\x0a\x03\xff\xfe\xfd", b"\xff\xff\xff\xff\xff"):
        error = _refused(call, service, _TEXT_FIRST.get(service, rpc), body)
        assert error.code() is INVALID, (service, body, error.code(), error.details())
    call(service, rpc, request.SerializeToString())


@pytest.mark.parametrize("service", SERVICES)
@pytest.mark.parametrize("key", ["", "bk_wrong", "not.a.jwt", "ключ".encode().hex()])
def test_no_key_or_a_wrong_one_is_unauthenticated(call: Call, service: str, key: str) -> None:
    """Every service refuses a missing or unknown key, and never repeats it."""
    rpc, request = _WORKING[service]
    error = _refused(call, service, rpc, request.SerializeToString(), key=key)
    assert error.code() is grpc.StatusCode.UNAUTHENTICATED
    assert not key or key not in (error.details() or "")


@pytest.mark.parametrize("service", SERVICES)
def test_an_expired_deadline_is_deadline_exceeded(call: Call, service: str) -> None:
    """A call whose time is over ends as such, and the next one works."""
    rpc, request = _WORKING[service]
    body = request.SerializeToString()
    for _ in range(20):  # the quickest calls may come back before gRPC's timer is looked at
        try:
            call(service, rpc, body, timeout_s=0.0001)
        except grpc.RpcError as error:
            ended = error.code()
            break
    else:
        pytest.fail("a deadline of 100 µs was met 20 times")
    assert ended is grpc.StatusCode.DEADLINE_EXCEEDED
    call(service, rpc, body)


def test_a_refused_document_does_not_hinder_the_others(call: Call) -> None:
    """Binary rubbish among documents is refused by itself, with a reason."""
    documents = [_document(document_id="rubbish", content=bytes(range(256))), _document(document_id="good")]
    request = retriever.IndexDocumentsRequest(documents=documents)
    response = retriever.IndexDocumentsResponse.FromString(
        call("retriever", "IndexDocuments", request.SerializeToString())
    )
    assert [result.outcome == retriever.INDEX_OUTCOME_REFUSED for result in response.results] == [True, False]
    assert response.results[0].error_reason


def test_a_cancelled_stream_is_recorded_and_the_next_works(stack: RunningStack, call: Call) -> None:
    """A caller that goes away after the first event leaves the gateway working."""
    with grpc.insecure_channel(stack.connection.target("gateway")) as channel:
        stream = channel.unary_stream("/binnacle.gateway.v1.GatewayService/StreamAnswer")(
            gateway.StreamAnswerRequest(question=_question()).SerializeToString(),
            metadata=(("authorization", f"Bearer {stack.connection.api_key}"),),
        )
        first = gateway.StreamAnswerResponse.FromString(next(stream))
        stream.cancel()
    assert first.accepted.request_id
    rpc, request = _WORKING["gateway"]
    call("gateway", rpc, request.SerializeToString())
