"""The gRPC face of the guardrail: decode, one domain call, encode."""

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import aclosing, suppress
from typing import Any

from binnacle.guardrail.v1 import guardrail_service_pb2 as rpc
from binnacle.guardrail.v1 import guardrail_service_pb2_grpc as stubs
from servicekit.errors import InvalidRequest, PermissionDenied
from servicekit.rpc.auth import current_caller, require_scope
from servicekit.rpc.deadline import current_budget
from services.guardrail.checking import CheckContext, Guardrail
from services.guardrail.convert import (
    context_from,
    input_from,
    input_to,
    output_from,
    output_to,
    restored_to,
    restoring_from,
    retrieved_from,
    retrieved_to,
)
from services.guardrail.convert_streams import event_to, start_from, texts_from
from services.guardrail.streaming.checks import StreamChecks

SERVICE_NAME = rpc.DESCRIPTOR.services_by_name["GuardrailService"].full_name
SCOPES = {
    "CheckInput": "guard",
    "CheckRetrieved": "guard",
    "CheckOutput": "guard",
    "CheckStream": "guard",
    "RestoreText": "restore",
}
_UNHEARD_S = 1.0


class GuardrailServicer(stubs.GuardrailServiceServicer):
    """Judges texts for the caller's tenant."""

    def __init__(self, guardrail: Guardrail, streams: StreamChecks) -> None:
        self._guardrail = guardrail
        self._streams = streams

    async def CheckInput(  # noqa: N802  # the proto names it
        self,
        request: rpc.CheckInputRequest,
        context: Any,  # noqa: ARG002  # the signature of every servicer method
    ) -> rpc.CheckInputResponse:
        """Judges what an end user typed."""
        text = input_from(request)
        return input_to(await self._guardrail.check_input(text, _context(request.context), deadline_s=_left_s()))

    async def CheckRetrieved(  # noqa: N802  # the proto names it
        self,
        request: rpc.CheckRetrievedRequest,
        context: Any,  # noqa: ARG002  # the signature of every servicer method
    ) -> rpc.CheckRetrievedResponse:
        """Judges retrieved chunks, each by itself."""
        texts = retrieved_from(request)
        judged = await self._guardrail.check_retrieved(texts, _context(request.context), deadline_s=_left_s())
        return retrieved_to(judged)

    async def CheckOutput(  # noqa: N802  # the proto names it
        self,
        request: rpc.CheckOutputRequest,
        context: Any,  # noqa: ARG002  # the signature of every servicer method
    ) -> rpc.CheckOutputResponse:
        """Judges an answer or a piece of one."""
        text, chunk_texts, piece, whole = output_from(request)
        judgement = await self._guardrail.check_output(
            text, chunk_texts, _context(request.context), piece=piece, whole=whole, deadline_s=_left_s()
        )
        return output_to(judgement)

    async def CheckStream(  # noqa: N802  # the proto names it
        self,
        request_iterator: AsyncIterator[rpc.CheckStreamRequest],
        context: Any,  # noqa: ARG002  # the signature of every servicer method
    ) -> AsyncGenerator[rpc.CheckStreamResponse, None]:
        """Judges an answer while it is made."""
        frames = aiter(request_iterator)
        caller = current_caller()
        try:
            start = await start_from(frames, tenant=caller.tenant, request_id=caller.request_id or "")
            if start.restore:
                require_scope("restore")
            async with aclosing(self._streams.check(start, texts_from(frames), left_s=_left_s)) as events:
                async for event in events:
                    yield event_to(event)
        except (InvalidRequest, PermissionDenied):
            await _unheard(frames)
            raise

    async def RestoreText(  # noqa: N802  # the proto names it
        self,
        request: rpc.RestoreTextRequest,
        context: Any,  # noqa: ARG002  # the signature of every servicer method
    ) -> rpc.RestoreTextResponse:
        """Puts values back in the place of their placeholders."""
        whose = _context(request.context)
        return restored_to(await self._guardrail.restore(restoring_from(request, whose), whose))


def _context(message: rpc.CheckContext) -> CheckContext:
    caller = current_caller()
    return context_from(message, tenant=caller.tenant, request_id=caller.request_id or "")


async def _unheard(frames: AsyncIterator[rpc.CheckStreamRequest]) -> None:
    """Read what the caller still writes: a call that ends while it writes tells it no reason."""
    with suppress(TimeoutError, InvalidRequest):
        async with asyncio.timeout(_UNHEARD_S):
            async for _ in frames:
                pass


def _left_s() -> float | None:
    budget = current_budget()
    return budget.timeout_s() if budget else None
