"""The guardrail, the retriever and the generator over gRPC, behind the Protocols of `backends.py`."""

import hashlib
from collections.abc import AsyncGenerator, Sequence
from contextlib import aclosing
from dataclasses import replace
from typing import Any

import grpc
from grpc_health.v1 import health_pb2
from grpc_health.v1.health_pb2_grpc import HealthStub

from binnacle.generator.v1 import generator_service_pb2 as generator_pb
from binnacle.generator.v1.generator_service_pb2_grpc import GeneratorServiceStub
from binnacle.guardrail.v1 import guardrail_service_pb2 as guardrail_pb
from binnacle.guardrail.v1.guardrail_service_pb2_grpc import GuardrailServiceStub
from binnacle.retriever.v1 import retriever_service_pb2 as retriever_pb
from binnacle.retriever.v1.retriever_service_pb2_grpc import RetrieverServiceStub
from binnacle.type.v1 import chunk_pb2, generation_pb2
from servicekit.domain.generation import Cost, FinishReason, TokenEvent, Usage
from servicekit.domain.verdict import Action, strongest
from servicekit.errors import BackendUnavailable, BinnacleError, InvalidRequest
from servicekit.rpc.status import details_of, to_error
from services.gateway import convert_types as types
from services.gateway.backends import (
    CheckContext,
    Found,
    FoundChunk,
    Generated,
    GenerationRequest,
    GuardEvent,
    Judgement,
    ModelAlias,
    Released,
    SearchResult,
    StreamedText,
    StreamEnd,
)
from services.gateway.question import RetrievalMode, SealedFilter

IDEMPOTENT = {
    "guardrail": tuple(
        f"binnacle.guardrail.v1.GuardrailService/{name}" for name in ("CheckInput", "CheckRetrieved", "RestoreText")
    ),
    "retriever": ("binnacle.retriever.v1.RetrieverService/SearchChunks",),
    "generator": ("binnacle.generator.v1.GeneratorService/ListModels",),
}
_MODES = {
    RetrievalMode.DENSE: retriever_pb.SEARCH_MODE_DENSE,
    RetrievalMode.SPARSE: retriever_pb.SEARCH_MODE_SPARSE,
    RetrievalMode.HYBRID: retriever_pb.SEARCH_MODE_HYBRID,
}
_PING_S = 2.0


class GuardClient:
    """Asks the guardrail; calls on `restoring` carry the scope `restore`, for callers who may have it alone."""

    def __init__(self, channel: grpc.aio.Channel, *, restoring: grpc.aio.Channel) -> None:
        self._stub: Any = GuardrailServiceStub(channel)
        self._restoring_stub: Any = GuardrailServiceStub(restoring)

    async def check_input(self, text: str, *, context: CheckContext, timeout_s: float) -> Judgement:
        """Judge what an end user typed."""
        request = guardrail_pb.CheckInputRequest(text=text, context=_context(context))
        try:
            response = await self._stub.CheckInput(request, timeout=timeout_s)
        except grpc.aio.AioRpcError as exc:
            raise to_error(exc, "guardrail") from exc
        return _judgement(response)

    async def check_retrieved(
        self, chunks: Sequence[FoundChunk], *, context: CheckContext, timeout_s: float
    ) -> Sequence[Judgement]:
        """Judge chunks, each by itself: its text and, once for all chunks of a document, its title."""
        titles = {chunk.title: chunk.chunk_id for chunk in reversed(chunks) if chunk.title.strip()}
        texts = [_retrieved_text(chunk.chunk_id, chunk.content_hash, chunk.text) for chunk in chunks]
        texts += [_retrieved_text(chunk_id, _hash(title), title) for title, chunk_id in titles.items()]
        request = guardrail_pb.CheckRetrievedRequest(texts=texts, context=_context(context))
        try:
            response = await self._stub.CheckRetrieved(request, timeout=timeout_s)
        except grpc.aio.AioRpcError as exc:
            raise to_error(exc, "guardrail") from exc
        if len(response.judgements) != len(texts):
            raise BackendUnavailable(
                f"guardrail judged {len(response.judgements)} of {len(texts)} texts", reason="GUARDRAIL_INCOMPLETE"
            )
        of_titles = dict(zip(titles, response.judgements[len(chunks) :], strict=True))
        return [
            _chunk_judgement(chunk, of_text, of_titles.get(chunk.title), response.policy_version)
            for chunk, of_text in zip(chunks, response.judgements, strict=False)
        ]

    async def check_stream(
        self,
        texts: AsyncGenerator[StreamedText, None],
        *,
        chunk_texts: Sequence[str],
        context: CheckContext,
        restore: bool,
        timeout_s: float,
    ) -> AsyncGenerator[GuardEvent, None]:
        """Judge an answer while it is made; closing cancels the call."""
        start = guardrail_pb.CheckStreamStart(context=_context(context), chunk_texts=chunk_texts, restore=restore)
        stub = self._restoring_stub if restore else self._stub
        call = stub.CheckStream(_frames(start, texts), timeout=timeout_s)
        try:
            async for response in call:
                event = _guard_event(response)
                yield event
                if isinstance(event, StreamEnd):
                    return
        except grpc.aio.AioRpcError as exc:
            raise to_error(exc, "guardrail") from exc
        finally:
            call.cancel()
        raise BackendUnavailable("the guardrail's stream ended without its end", reason="GUARDRAIL_INCOMPLETE")

    async def restore_text(self, texts: Sequence[str], *, context: CheckContext, timeout_s: float) -> Sequence[str]:
        """Put back what end users typed."""
        request = guardrail_pb.RestoreTextRequest(texts=texts, context=_context(context))
        try:
            response = await self._restoring_stub.RestoreText(request, timeout=timeout_s)
        except grpc.aio.AioRpcError as exc:
            raise to_error(exc, "guardrail") from exc
        return tuple(response.texts)


class RetrieverClient:
    """Asks the retriever."""

    def __init__(self, channel: grpc.aio.Channel) -> None:
        self._stub: Any = RetrieverServiceStub(channel)

    async def search(
        self,
        query: str,
        *,
        top_k: int,
        mode: RetrievalMode,
        where: SealedFilter | None,
        speculative: bool,
        profile: str,
        timeout_s: float,
    ) -> SearchResult:
        """Chunks for the query, best first."""
        request = retriever_pb.SearchChunksRequest(
            query=query,
            top_k=top_k,
            mode=_MODES[mode],
            filter=None if where is None else chunk_pb2.Filter.FromString(where.encoded),
            speculative=speculative,
            profile=profile,
        )
        try:
            response = await self._stub.SearchChunks(request, timeout=timeout_s)
        except grpc.aio.AioRpcError as exc:
            raise _as_of_question(to_error(exc, "retriever"), renamed={"query": "text"}) from exc
        return SearchResult(
            chunks=tuple(types.found_chunk_of(chunk) for chunk in response.chunks),
            corpus_version=response.corpus_version,
            embedding_model=response.embedding_model,
            degradations=tuple(response.degradations),
        )


class GeneratorClient:
    """Asks the generator."""

    def __init__(self, channel: grpc.aio.Channel) -> None:
        self._stub: Any = GeneratorServiceStub(channel)

    async def generate(
        self, request: GenerationRequest, *, timeout_s: float
    ) -> AsyncGenerator[TokenEvent | Generated, None]:
        """Tokens, then the end, or what it took until it broke off and the error; closing cancels the call."""
        events = self._whole(request, timeout_s) if request.output_schema else self._streamed(request, timeout_s)
        try:
            async with aclosing(events):
                async for event in events:
                    yield event
        except grpc.aio.AioRpcError as exc:
            if (spent := _spent(exc)) is not None:
                yield spent
            raise _as_of_question(to_error(exc, "generator"), renamed={"question": "text"}) from exc

    async def _streamed(
        self, request: GenerationRequest, timeout_s: float
    ) -> AsyncGenerator[TokenEvent | Generated, None]:
        call = self._stub.GenerateAnswer(_generation(request), timeout=timeout_s)
        try:
            async for response in call:
                if response.HasField("token"):
                    yield TokenEvent(response.token.text, response.token.token_count)
                else:
                    yield _generated(response.end)
        finally:
            call.cancel()

    async def _whole(
        self, request: GenerationRequest, timeout_s: float
    ) -> AsyncGenerator[TokenEvent | Generated, None]:
        """What is held back anyway may as well be done over by another engine."""
        asked = generator_pb.CompleteAnswerRequest(generation=_generation(request))
        response = await self._stub.CompleteAnswer(asked, timeout=timeout_s)
        end = response.end
        yield TokenEvent(end.answer, end.attempts[-1].usage.output_tokens if end.attempts else 0)
        yield _generated(end)

    async def list_models(self, *, timeout_s: float) -> Sequence[ModelAlias]:
        """The aliases that can be asked for."""
        try:
            response = await self._stub.ListModels(generator_pb.ListModelsRequest(), timeout=timeout_s)
        except grpc.aio.AioRpcError as exc:
            raise to_error(exc, "generator") from exc
        return [
            ModelAlias(model.alias, model.model, model.context_window_tokens, model.available)
            for model in response.models
        ]


async def ping(channel: grpc.aio.Channel) -> None:
    """Return if the service behind the channel says that it serves, else raise BackendUnavailable."""
    stub: Any = HealthStub(channel)
    try:
        response = await stub.Check(health_pb2.HealthCheckRequest(), timeout=_PING_S)
    except grpc.aio.AioRpcError as exc:
        raise to_error(exc, "backend") from exc
    if response.status != health_pb2.HealthCheckResponse.SERVING:
        raise BackendUnavailable("backend is not serving", reason="NOT_SERVING")


def _context(context: CheckContext) -> guardrail_pb.CheckContext:
    return guardrail_pb.CheckContext(
        request_id=context.request_id, conversation_id=context.conversation_id, route=context.route
    )


async def _frames(
    start: guardrail_pb.CheckStreamStart, texts: AsyncGenerator[StreamedText, None]
) -> AsyncGenerator[guardrail_pb.CheckStreamRequest, None]:
    yield guardrail_pb.CheckStreamRequest(start=start)
    async with aclosing(texts):
        async for one in texts:
            text = guardrail_pb.StreamedText(text=one.text, token_count=one.token_count, final=one.final)
            yield guardrail_pb.CheckStreamRequest(text=text)


def _guard_event(response: guardrail_pb.CheckStreamResponse) -> GuardEvent:
    match response.WhichOneof("event"):
        case "released":
            released = response.released
            return Released(released.text, released.source_chars, released.restored_text)
        case "found":
            return Found(tuple(types.verdict_of(verdict) for verdict in response.found.verdicts))
        case "ended":
            ended = response.ended
            return StreamEnd(types.action_of(ended.action), ended.policy_version, ended.judging_us / 1e6)
        case unknown:
            raise BackendUnavailable(f"the guardrail sent an event of kind {unknown!r}", reason="GUARDRAIL_INCOMPLETE")


def _judgement(response: guardrail_pb.CheckInputResponse) -> Judgement:
    return Judgement(
        action=types.action_of(response.action),
        text=response.text,
        verdicts=tuple(types.verdict_of(verdict) for verdict in response.verdicts),
        policy_version=response.policy_version,
    )


def _hash(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()


def _retrieved_text(chunk_id: str, content_hash: str, text: str) -> guardrail_pb.RetrievedText:
    return guardrail_pb.RetrievedText(chunk_id=chunk_id, content_hash=content_hash, text=text)


def _chunk_judgement(
    chunk: FoundChunk,
    of_text: guardrail_pb.RetrievedJudgement,
    of_title: guardrail_pb.RetrievedJudgement | None,
    policy_version: str,
) -> Judgement:
    """Both judgements as one, the stronger action first; a title's verdicts are told with its first chunk only."""
    text_action = types.action_of(of_text.action)
    title_action = Action.ALLOW if of_title is None else types.action_of(of_title.action)
    verdicts = [types.verdict_of(verdict) for verdict in of_text.verdicts]
    if of_title is not None and of_title.chunk_id == chunk.chunk_id:
        verdicts += [replace(types.verdict_of(verdict), span=None) for verdict in of_title.verdicts]
    return Judgement(
        action=strongest((text_action, title_action)),
        text=of_text.redacted_text if text_action is Action.REDACT else chunk.text,
        title=of_title.redacted_text if of_title is not None and title_action is Action.REDACT else None,
        verdicts=tuple(verdicts),
        policy_version=policy_version,
    )


def _generation(request: GenerationRequest) -> generator_pb.GenerateAnswerRequest:
    return generator_pb.GenerateAnswerRequest(
        question=request.question,
        chunks=[types.scored_chunk_message(chunk) for chunk in request.chunks],
        history=[types.message_message(message) for message in request.history],
        model=request.model,
        sampling=types.sampling_message(request.sampling),
        request_id=request.request_id,
        output_schema=request.output_schema,
        logprobs=request.want_logprobs,
    )


def _generated(end: generator_pb.GenerationEnd) -> Generated:
    return Generated(
        citations=tuple(types.citation_of(citation) for citation in end.citations),
        usage=types.usage_of(end.usage),
        cost=Cost(end.cost_microusd, end.price_version),
        finish_reason=types.finish_reason_of(end.finish_reason),
        attempts=tuple(types.attempt_of(attempt) for attempt in end.attempts),
        prompt=types.prompt_of(end.prompt) if end.HasField("prompt") else None,
        packed_chunk_ids=frozenset(end.packed_chunk_ids),
        degradations=tuple(types.degradation_of(one) for one in end.degradations),
        refused=end.refused,
        sampling=types.sampling_of(end.sampling) if end.HasField("sampling") else None,
        mean_logprob=end.mean_logprob if end.HasField("mean_logprob") else None,
        invalid_markers=tuple(end.invalid_markers),
    )


def _spent(error: grpc.aio.AioRpcError) -> Generated | None:
    """What the attempts of a generation that failed took, if the generator says so."""
    attempts = tuple(types.attempt_of(attempt) for attempt in details_of(error, generation_pb2.Attempt))
    if not attempts:
        return None
    return Generated(
        usage=sum((attempt.usage for attempt in attempts), Usage()),
        cost=Cost(sum(attempt.cost.microusd for attempt in attempts), attempts[-1].cost.price_version),
        finish_reason=FinishReason.ERROR,
        attempts=attempts,
    )


def _as_of_question(error: BinnacleError, *, renamed: dict[str, str]) -> BinnacleError:
    """A backend's complaint about a field, told with the field of the caller's question."""
    if not isinstance(error, InvalidRequest) or not error.field:
        return error
    head, dot, tail = error.field.removeprefix("generation.").partition(".")
    field = f"question.{renamed.get(head, head)}{dot}{tail}"
    return type(error)(error.message, field=field, reason=error.reason, metadata=error.metadata)
