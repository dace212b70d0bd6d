"""The gateway's gRPC servicer: decode, one domain call, encode."""

import asyncio
from typing import TYPE_CHECKING, Any

import grpc

from binnacle.gateway.v1 import gateway_service_pb2 as pb
from binnacle.gateway.v1.gateway_service_pb2_grpc import GatewayServiceServicer
from servicekit.errors import Overloaded
from servicekit.rpc.auth import current_caller
from servicekit.rpc.deadline import Budget, current_budget
from services.gateway.answer import AnswerEvent
from services.gateway.answering import Answering
from services.gateway.convert import answer_message, feedback_of, feedback_response, question_of, stream_message
from services.gateway.feedback import FeedbackDesk
from services.gateway.question import Asker, Channel

if TYPE_CHECKING:  # generic in its stubs only
    _Context = grpc.aio.ServicerContext[Any, Any]

SCOPES = {"AnswerQuestion": "answer", "StreamAnswer": "answer", "RecordFeedback": "feedback"}


class GatewayServicer(GatewayServiceServicer):
    """`slow_reader_s` cuts a stream whose reader takes nothing for so long."""

    def __init__(
        self, answering: Answering, desk: FeedbackDesk, *, default_deadline_s: float, slow_reader_s: float
    ) -> None:
        self._answering = answering
        self._desk = desk
        self._default_deadline_s = default_deadline_s
        self._slow_reader_s = slow_reader_s

    async def AnswerQuestion(  # noqa: N802  # the proto names it
        self, request: pb.AnswerQuestionRequest, context: "_Context"
    ) -> pb.AnswerQuestionResponse:
        """Answers one question, whole."""
        answer = await self._answering.answer(
            question_of(request.question, channel=Channel.GRPC),
            asker=current_asker(),
            budget=self._budget(context),
        )
        return pb.AnswerQuestionResponse(answer=answer_message(answer))

    async def StreamAnswer(  # type: ignore[override]  # noqa: N802  # grpc.aio lets a servicer write by itself
        self, request: pb.StreamAnswerRequest, context: "_Context"
    ) -> None:
        """Answers one question as events; writes them itself, so that a cancelled write is seen at once."""
        sequence = 0

        async def write(event: AnswerEvent) -> None:
            nonlocal sequence
            sequence += 1
            try:
                async with asyncio.timeout(self._slow_reader_s):
                    await context.write(stream_message(event, sequence))
            except TimeoutError as exc:
                raise Overloaded(
                    f"the stream was cut: nothing was read from it for {self._slow_reader_s:g} s", reason="SLOW_READER"
                ) from exc

        await self._answering.answer(
            question_of(request.question, channel=Channel.GRPC_STREAM),
            asker=current_asker(),
            budget=self._budget(context),
            emit=write,
        )

    async def RecordFeedback(  # noqa: N802  # the proto names it
        self, request: pb.RecordFeedbackRequest, context: "_Context"
    ) -> pb.RecordFeedbackResponse:
        """Records what somebody thinks of an answer."""
        recorded = await self._desk.record(feedback_of(request), asker=current_asker(), budget=self._budget(context))
        return feedback_response(recorded)

    def _budget(self, context: "_Context") -> Budget:
        """The caller's deadline, or the default one where the caller named none."""
        budget = current_budget()
        if budget is None or context.time_remaining() is None:
            return Budget.from_remaining(self._default_deadline_s)
        return budget


def current_asker() -> Asker:
    """Who makes the running call."""
    caller = current_caller()
    return Asker(caller.tenant, caller.subject, may_restore=caller.may("restore"))
