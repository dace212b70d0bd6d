"""The one server interceptor: everything that is the same for every call of every service, unary or streaming.

Installed by `rpc.server`. One interceptor, for each costs a coroutine per call; the steps are in `rpc.call`.
"""

import asyncio
import inspect
from collections.abc import AsyncIterable, AsyncIterator, Awaitable, Callable
from contextlib import aclosing
from typing import TYPE_CHECKING, Any

import grpc
import structlog
from opentelemetry.trace import SpanKind

from servicekit.errors import Overloaded
from servicekit.rpc.call import IncomingCall, MethodMetrics, RpcPolicy, cancelled_from_outside
from servicekit.telemetry.tracing import span

EXEMPT_PREFIXES = ("/grpc.health.v1.", "/grpc.reflection.v1alpha.", "/grpc.reflection.v1.")
_CUT_S = 1.0

log = structlog.get_logger()

if TYPE_CHECKING:  # generic in its stubs only
    _Handler = grpc.RpcMethodHandler[Any, Any]

_Behaviour = Callable[[Any, Any], Any]
_Work = Callable[[IncomingCall], Awaitable[Any]]


class CallInterceptor(grpc.aio.ServerInterceptor):
    """Authenticates, bounds, traces, counts, logs, and turns every exception into a status.

    A cancelled call stays cancelled. Health and reflection pass untouched.
    """

    def __init__(self, policy: RpcPolicy) -> None:
        self._policy = policy
        self._handlers: dict[str, _Handler] = {}
        self._long_lived: dict[asyncio.Task[Any], IncomingCall] = {}

    async def intercept_service(
        self,
        continuation: Callable[[grpc.HandlerCallDetails], Awaitable["_Handler | None"]],
        handler_call_details: grpc.HandlerCallDetails,
    ) -> "_Handler | None":
        """The handler of the call's method, wrapped once and kept."""
        handler = await continuation(handler_call_details)
        method = handler_call_details.method
        if handler is None or method.startswith(EXEMPT_PREFIXES):
            return handler
        wrapped = self._handlers.get(method)
        if wrapped is None:
            wrapped = self._handlers[method] = self._wrap(method, handler)
        return wrapped

    def cut_long_lived(self) -> None:
        """End subscriptions with UNAVAILABLE, so that their readers go to another replica; for the drain."""
        for task, call in tuple(self._long_lived.items()):
            call.drained = True
            task.cancel()

    def _wrap(self, method: str, handler: "_Handler") -> "_Handler":
        """The same kind of handler, taking raw bytes: what does not parse must become INVALID_ARGUMENT."""
        metrics = MethodMetrics(method)
        parse, serialize = handler.request_deserializer, handler.response_serializer
        if handler.unary_unary:
            unary = self._unary(method, metrics, handler.unary_unary, parse)
            return grpc.unary_unary_rpc_method_handler(unary, None, serialize)
        if handler.unary_stream:
            stream = self._stream(method, metrics, handler.unary_stream, parse)
            return grpc.unary_stream_rpc_method_handler(stream, None, serialize)
        if handler.stream_unary:
            collect = self._unary(method, metrics, handler.stream_unary, parse, streamed=True)
            return grpc.stream_unary_rpc_method_handler(collect, None, serialize)
        assert handler.stream_stream
        both = self._stream(method, metrics, handler.stream_stream, parse, streamed=True)
        return grpc.stream_stream_rpc_method_handler(both, None, serialize)

    def _unary(
        self, method: str, metrics: MethodMetrics, behaviour: _Behaviour, parse: Any, *, streamed: bool = False
    ) -> Any:
        async def handle(received: Any, context: Any) -> Any:
            async def work(call: IncomingCall) -> Any:
                request = _parsed(call, parse, received) if streamed else call.parse(parse, received)
                async with asyncio.timeout(call.budget.timeout_s()):
                    return await behaviour(request, context)

            return await self._run(IncomingCall(self._policy, method, metrics, context), context, work)

        return handle

    def _stream(
        self, method: str, metrics: MethodMetrics, behaviour: _Behaviour, parse: Any, *, streamed: bool = False
    ) -> Any:
        async def handle(received: Any, context: Any) -> None:
            async def work(call: IncomingCall) -> None:
                request = _parsed(call, parse, received) if streamed else call.parse(parse, received)
                async with asyncio.timeout(call.budget.timeout_s()):
                    await self._pump(behaviour(request, context), context)

            call = IncomingCall(self._policy, method, metrics, context)
            if method not in self._policy.long_lived:
                await self._run(call, context, work)
                return
            task = asyncio.current_task()
            assert task is not None
            self._long_lived[task] = call
            try:
                await self._run(call, context, work)
            finally:
                del self._long_lived[task]

        return handle

    async def _pump(self, responses: Any, context: Any) -> None:
        if inspect.isawaitable(responses):  # a servicer that writes to the context by itself
            await responses
            return
        async with aclosing(responses):
            async for response in responses:
                try:
                    async with asyncio.timeout(self._policy.slow_reader_s):
                        await context.write(response)
                except TimeoutError as exc:
                    raise Overloaded(
                        f"the stream was cut: nothing was read from it for {self._policy.slow_reader_s:g} s",
                        reason="SLOW_READER",
                    ) from exc

    async def _run(self, call: IncomingCall, context: Any, work: _Work) -> Any:
        with span(call.method, kind=SpanKind.SERVER, traceparent=call.traceparent()):
            try:
                call.open()
                result = await work(call)
                call.succeed()
            except asyncio.CancelledError as exc:
                if call.drained or not cancelled_from_outside():
                    await self._abort(call, context, exc)
                call.cancelled()
                raise
            except grpc.aio.AbortError:
                call.code = context.code()
                raise
            except Exception as exc:  # noqa: BLE001  # the edge: whatever it is becomes a status
                await self._abort(call, context, exc)
            else:
                return result
            finally:
                call.close()

    async def _abort(self, call: IncomingCall, context: Any, error: BaseException) -> None:
        """End with the error's status; a reader that does not read cannot keep us from ending."""
        failure = call.fail(error)
        try:
            async with asyncio.timeout(_CUT_S):
                await context.abort(failure.code, failure.message, failure.trailers)
        except TimeoutError:
            raise asyncio.CancelledError from error


async def _parsed(call: IncomingCall, parse: Any, received: AsyncIterable[bytes]) -> AsyncIterator[Any]:
    async for raw in received:
        yield call.parse(parse, raw)
