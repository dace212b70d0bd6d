"""The gateway over real gRPC: its three RPCs, their statuses, their records."""

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import grpc
import pytest
from google.rpc import error_details_pb2
from grpc_status import rpc_status

from binnacle.events.v1 import interaction_completed_pb2 as event_pb
from binnacle.gateway.v1 import gateway_service_pb2 as pb
from binnacle.generator.v1 import generator_service_pb2 as generator_pb
from binnacle.type.v1 import generation_pb2
from servicekit.errors import BackendUnavailable
from servicekit.rpc.status import details_of, to_failure
from tests.integration.gateway_stack import REDACTED, SECRET, Backends, RunningGateway, running_gateway


def _ask(text: str = "What is kept?", **fields: object) -> pb.AnswerQuestionRequest:
    return pb.AnswerQuestionRequest(question=pb.Question(text=text, **fields))  # type: ignore[arg-type]  # any field


async def _stream(gateway: RunningGateway, request: pb.AnswerQuestionRequest) -> list[pb.StreamAnswerResponse]:
    call = gateway.stub.StreamAnswer(
        pb.StreamAnswerRequest(question=request.question), metadata=gateway.auth(), timeout=10
    )
    return [event async for event in call]


async def _until(condition: object, *, timeout_s: float = 5) -> None:
    async with asyncio.timeout(timeout_s):
        while not condition():  # type: ignore[operator]  # a callable
            await asyncio.sleep(0.01)


async def test_answer_carries_its_provenance(tmp_path: Path) -> None:
    """A unary answer has text, citations, chunks, usage, cost, timings, and its request id in the trailers."""
    async with running_gateway(tmp_path) as gateway:
        call = gateway.stub.AnswerQuestion(_ask(end_user_id="u"), metadata=gateway.auth(), timeout=10)
        answer = (await call).answer
        assert answer.text == "Kafka keeps records [1]. They have offsets."
        assert answer.outcome == pb.OUTCOME_ANSWERED
        (citation,) = answer.citations
        assert answer.text[citation.answer_span.start : citation.answer_span.end] == citation.marker == "[1]"
        assert [(chunk.chunk_id, chunk.used) for chunk in answer.chunks] == [("c1", True), ("c2", False), ("c3", False)]
        assert (answer.usage.input_tokens, answer.cost_microusd, answer.corpus_version) == (20, 9, 7)
        assert ("x-request-id", answer.request_id) in tuple(await call.trailing_metadata())
        (record,) = gateway.interactions()
        assert (record.request_id, record.tenant_id, record.channel) == (answer.request_id, "acme", "grpc")


async def test_backends_are_called_for_the_caller(tmp_path: Path) -> None:
    """Every backend call carries a minted token and the request id; blocked chunks go no further."""
    async with running_gateway(tmp_path) as gateway:
        answer = (await gateway.stub.AnswerQuestion(_ask(), metadata=gateway.auth(), timeout=10)).answer
        for _, _, metadata in gateway.backends.calls:
            assert metadata["authorization"].startswith("Bearer ")
            assert gateway.api_key not in metadata["authorization"]
            assert metadata["x-request-id"] == answer.request_id
        (generation,) = gateway.backends.requests("GenerateAnswer")
        assert [chunk.chunk.text for chunk in generation.chunks] == [
            "Kafka keeps records in a log.",
            f"Ask {REDACTED} about offsets.",
        ]
        assert generation.request_id == answer.request_id


async def test_stream_keeps_its_order(tmp_path: Path) -> None:
    """Accepted, retrieved, tokens and verdicts, completed; numbered from 1; the tokens are the answer."""
    async with running_gateway(tmp_path) as gateway:
        events = await _stream(gateway, _ask())
        kinds = [event.WhichOneof("event") for event in events]
        assert kinds[:2] == ["accepted", "retrieved"]
        assert set(kinds[2:-1]) == {"verdict", "token"}
        assert kinds[-1] == "completed"
        assert [event.sequence for event in events] == list(range(1, len(events) + 1))
        tokens = "".join(event.token.text for event in events)
        assert tokens == events[-1].completed.answer.text
        assert gateway.interactions()[0].channel == "grpc-stream"


async def test_block_is_an_outcome_not_an_error(tmp_path: Path) -> None:
    """A blocked question is answered OK with outcome blocked, and nothing of it is written."""
    async with running_gateway(tmp_path) as gateway:
        answer = (await gateway.stub.AnswerQuestion(_ask("BLOCK me"), metadata=gateway.auth(), timeout=10)).answer
        assert answer.outcome == pb.OUTCOME_BLOCKED
        assert "BLOCK" not in str(gateway.interactions()[0].query)


async def test_secrets_reach_no_record(tmp_path: Path) -> None:
    """A redacted question is searched again, and the record holds the redacted text only."""
    async with running_gateway(tmp_path) as gateway:
        await gateway.stub.AnswerQuestion(_ask(f"Who is {SECRET}?"), metadata=gateway.auth(), timeout=10)
        searches = gateway.backends.requests("SearchChunks")
        assert [(one.query, one.speculative) for one in searches if SECRET not in one.query] == [
            (f"Who is {REDACTED}?", False)
        ]
        assert SECRET not in str(gateway.interactions()[0])


async def test_a_search_takes_its_routes_profile_and_tells_what_it_went_without(tmp_path: Path) -> None:
    """The retriever is told the route; what it could not do stands in the answer and in the record, with its cause."""

    class _NoReranker(Backends):
        async def SearchChunks(self, request: Any, context: Any) -> Any:  # noqa: N802  # as above
            response = await super().SearchChunks(request, context)
            response.degradations.append("RERANKER_UNAVAILABLE")
            return response

    async with running_gateway(tmp_path, _NoReranker()) as gateway:
        answer = (await gateway.stub.AnswerQuestion(_ask("What is a log?"), metadata=gateway.auth(), timeout=10)).answer
        assert {one.profile for one in gateway.backends.requests("SearchChunks")} == {"default"}
        told = [(one.rung, one.cause) for one in answer.degradations]
        assert told == [("simpler_search", "RERANKER_UNAVAILABLE")]
        assert list(gateway.interactions()[0].degradations) == list(answer.degradations)


async def test_a_failed_generation_is_billed(tmp_path: Path) -> None:
    """Tokens of engines that broke off cost money: the record of the failure holds each try, its caller learns none."""
    tries = tuple(
        generation_pb2.Attempt(
            number=number,
            model_alias=alias,
            engine="tgi://inside",
            usage=generation_pb2.Usage(input_tokens=10, output_tokens=number, estimated=True),
            cost_microusd=number * 5,
            price_version="v1",
            finish_reason=generation_pb2.FINISH_REASON_ERROR,
            error_reason="STREAM_CUT",
        )
        for number, alias in enumerate(("default", "spare"), 1)
    )

    class _BreaksOff(Backends):
        async def GenerateAnswer(self, request: Any, context: Any) -> AsyncIterator[Any]:  # noqa: N802  # as above
            yield generator_pb.GenerateAnswerResponse(token=generator_pb.TokenDelta(text="One. Two", token_count=3))
            error = BackendUnavailable("gone")
            error.details = tries
            failure = to_failure(error, service="generator", request_id="")
            await context.abort(failure.code, failure.message, failure.trailers)

    async with running_gateway(tmp_path, _BreaksOff()) as gateway:
        with pytest.raises(grpc.aio.AioRpcError) as raised:
            await gateway.stub.AnswerQuestion(_ask(), metadata=gateway.auth(), timeout=10)
        assert details_of(raised.value, generation_pb2.Attempt) == []
        (record,) = gateway.interactions()
        assert record.outcome == event_pb.INTERACTION_OUTCOME_FAILED
        assert list(record.attempts) == list(tries)
        assert (record.cost_microusd, record.price_version) == (15, "v1")
        assert (record.usage.input_tokens, record.usage.output_tokens, record.usage.estimated) == (20, 3, True)


async def test_titles_are_judged_like_the_texts_below_them(tmp_path: Path) -> None:
    """A prompt shows titles: one that policy blocks takes its chunk along, a redacted one goes on redacted."""
    backends = Backends(titles=(f"Mail of {SECRET}", "BLOCK: obey this title", "Fine"))
    async with running_gateway(tmp_path, backends) as gateway:
        answer = (await gateway.stub.AnswerQuestion(_ask(), metadata=gateway.auth(), timeout=10)).answer
        (generation,) = gateway.backends.requests("GenerateAnswer")
        assert [chunk.chunk.title for chunk in generation.chunks] == [f"Mail of {REDACTED}"]
        assert len(answer.verdicts) == 4  # of two texts and two titles


async def test_a_title_is_judged_once(tmp_path: Path) -> None:
    """Chunks of one document share a title: one judgement of it, and its verdicts are told once."""
    backends = Backends(titles=(f"By {SECRET}",) * 3)
    async with running_gateway(tmp_path, backends) as gateway:
        answer = (await gateway.stub.AnswerQuestion(_ask(), metadata=gateway.auth(), timeout=10)).answer
        (check,) = gateway.backends.requests("CheckRetrieved")
        assert [text.text for text in check.texts].count(f"By {SECRET}") == 1
        (generation,) = gateway.backends.requests("GenerateAnswer")
        assert {chunk.chunk.title for chunk in generation.chunks} == {f"By {REDACTED}"}
        assert len(answer.verdicts) == 3  # of two texts and the title


@pytest.mark.parametrize("away", ["CheckInput", "SearchChunks", "CheckRetrieved", "GenerateAnswer", "CheckStream"])
async def test_backend_away_gives_an_honest_refusal(tmp_path: Path, away: str) -> None:
    """With a backend failing the answer is a refusal that names the cause."""

    async def hook(name: str) -> None:
        if name == away:
            raise RuntimeError("broken")

    async with running_gateway(tmp_path, Backends(hook=hook)) as gateway:
        answer = (await gateway.stub.AnswerQuestion(_ask(), metadata=gateway.auth(), timeout=10)).answer
        assert answer.outcome == pb.OUTCOME_REFUSED
        assert answer.degradations[-1].rung == "honest_refusal"
        assert gateway.interactions()[0].degradations == answer.degradations


async def test_deadline_is_recorded_before_it_passes(tmp_path: Path) -> None:
    """A generation that takes too long ends as DEADLINE_EXCEEDED, recorded as such."""

    async def hook(name: str) -> None:
        if name == "token":
            await asyncio.Event().wait()

    async with running_gateway(tmp_path, Backends(hook=hook)) as gateway:
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await gateway.stub.AnswerQuestion(_ask(), metadata=gateway.auth(), timeout=0.6)
        assert caught.value.code() is grpc.StatusCode.DEADLINE_EXCEEDED
        await _until(gateway.interactions)
        (record,) = gateway.interactions()
        assert record.outcome == event_pb.INTERACTION_OUTCOME_DEADLINE
        await _until(gateway.backends.cancelled.is_set)


async def test_cancelled_stream_is_recorded_and_stops_the_generation(tmp_path: Path) -> None:
    """A caller that goes away is recorded as cancelled, the generator is told, the next request works."""

    async def hook(name: str) -> None:
        if name == "token":
            await asyncio.Event().wait()

    async with running_gateway(tmp_path, Backends(hook=hook)) as gateway:
        call = gateway.stub.StreamAnswer(pb.StreamAnswerRequest(question=_ask().question), metadata=gateway.auth())
        first = await call.read()
        await _until(lambda: gateway.backends.requests("GenerateAnswer"))
        call.cancel()
        await _until(gateway.interactions)
        (record,) = gateway.interactions()
        assert record.request_id == first.accepted.request_id
        assert record.outcome == event_pb.INTERACTION_OUTCOME_CANCELLED
        await _until(gateway.backends.cancelled.is_set)
        gateway.backends.hook = Backends().hook
        assert (await gateway.stub.AnswerQuestion(_ask(), metadata=gateway.auth(), timeout=10)).answer.text


async def test_no_acknowledgement_is_unavailable(tmp_path: Path) -> None:
    """Without the bus no answer is completed, and the next one, with it, is."""
    async with running_gateway(tmp_path) as gateway:
        gateway.bus.fail_next = 1
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await _stream(gateway, _ask())
        assert caught.value.code() is grpc.StatusCode.UNAVAILABLE
        assert _reason(caught.value) == "EVENT_NOT_RECORDED"
        assert (await _stream(gateway, _ask()))[-1].HasField("completed")


async def test_idempotency_over_the_wire(tmp_path: Path) -> None:
    """A repeat is replayed with its provenance; another question under the key is refused."""
    async with running_gateway(tmp_path) as gateway:
        first = (
            await gateway.stub.AnswerQuestion(_ask(idempotency_key="k"), metadata=gateway.auth(), timeout=10)
        ).answer
        again = (
            await gateway.stub.AnswerQuestion(_ask(idempotency_key="k"), metadata=gateway.auth(), timeout=10)
        ).answer
        assert again.replayed
        again.replayed = False
        del first.timings[-1]  # the record's own, which the record cannot hold
        assert again == first
        assert len(gateway.interactions()) == 1
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await gateway.stub.AnswerQuestion(_ask("Else?", idempotency_key="k"), metadata=gateway.auth(), timeout=10)
        assert caught.value.code() is grpc.StatusCode.INVALID_ARGUMENT
        foreign = await gateway.stub.AnswerQuestion(
            _ask(idempotency_key="k"), metadata=gateway.auth(gateway.foreign_key), timeout=10
        )
        assert foreign.answer.request_id != first.request_id


async def test_feedback_for_an_answer_is_accepted_at_once(tmp_path: Path) -> None:
    """Genuine ids are accepted, forged and foreign ones are NOT_FOUND."""
    async with running_gateway(tmp_path) as gateway:
        answer = (await gateway.stub.AnswerQuestion(_ask(), metadata=gateway.auth(), timeout=10)).answer
        request = pb.RecordFeedbackRequest(request_id=answer.request_id, kind=pb.FEEDBACK_KIND_THUMBS, thumbs_up=True)
        response = await gateway.stub.RecordFeedback(request, metadata=gateway.auth(), timeout=10)
        assert gateway.bus.published[-1].message.feedback_id == response.feedback_id
        for key, request_id in ((gateway.foreign_key, answer.request_id), (gateway.api_key, "forged")):
            request.request_id = request_id
            with pytest.raises(grpc.aio.AioRpcError) as caught:
                await gateway.stub.RecordFeedback(request, metadata=gateway.auth(key), timeout=10)
            assert caught.value.code() is grpc.StatusCode.NOT_FOUND


async def test_credentials_and_scopes(tmp_path: Path) -> None:
    """No key is UNAUTHENTICATED, a key without the scope PERMISSION_DENIED."""
    async with running_gateway(tmp_path) as gateway:
        for metadata, code in (
            ((), grpc.StatusCode.UNAUTHENTICATED),
            (gateway.auth("bk_wrong"), grpc.StatusCode.UNAUTHENTICATED),
            (gateway.auth(gateway.narrow_key), grpc.StatusCode.PERMISSION_DENIED),
        ):
            with pytest.raises(grpc.aio.AioRpcError) as caught:
                await gateway.stub.AnswerQuestion(_ask(), metadata=metadata, timeout=10)
            assert caught.value.code() is code
        assert gateway.interactions() == []


async def test_past_the_bound_is_resource_exhausted(tmp_path: Path) -> None:
    """One place, taken: the next request gets RESOURCE_EXHAUSTED with a retry delay."""
    go = asyncio.Event()

    async def hook(name: str) -> None:
        if name == "GenerateAnswer":
            await go.wait()

    async with running_gateway(tmp_path, Backends(hook=hook), max_concurrent_answers=1) as gateway:
        first = asyncio.ensure_future(gateway.stub.AnswerQuestion(_ask(), metadata=gateway.auth(), timeout=10))
        await _until(lambda: gateway.backends.requests("GenerateAnswer"))
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await gateway.stub.AnswerQuestion(_ask(), metadata=gateway.auth(), timeout=10)
        assert caught.value.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
        assert any(_unpacked(caught.value, error_details_pb2.RetryInfo))
        go.set()
        await first


async def test_unknown_model_is_told_as_the_generator_tells_it(tmp_path: Path) -> None:
    """The generator's NOT_FOUND reaches the caller; the failed request is recorded."""
    async with running_gateway(tmp_path) as gateway:
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await gateway.stub.AnswerQuestion(_ask(model="nonesuch"), metadata=gateway.auth(), timeout=10)
        assert caught.value.code() is grpc.StatusCode.NOT_FOUND
        (record,) = gateway.interactions()
        assert record.outcome == event_pb.INTERACTION_OUTCOME_FAILED


def _unpacked(error: grpc.aio.AioRpcError, kind: type[object]) -> list[object]:
    status = rpc_status.from_call(error)
    found = []
    for detail in status.details:
        message = kind()
        if detail.Unpack(message):
            found.append(message)
    return found


def _reason(error: grpc.aio.AioRpcError) -> str:
    (info,) = _unpacked(error, error_details_pb2.ErrorInfo)
    return str(info.reason)  # type: ignore[attr-defined]  # an ErrorInfo
