"""The one server interceptor: everything that is the same for every call of every service, unary or streaming.

Installed by `rpc.server`. One interceptor, for each costs a coroutine per call; the steps are in `rpc.call`.
"""

import asyncio
import inspect
from collections.abc import AsyncIterable, AsyncIterator, Awaitable, Callable, Iterator
from contextlib import aclosing, contextmanager, nullcontext
from typing import TYPE_CHECKING, Any

import grpc
from opentelemetry.trace import SpanKind

from servicekit.errors import BackendUnavailable
from servicekit.rpc.call import IncomingCall, MethodMetrics, RpcPolicy
from servicekit.rpc.slow_reader import SlowReaderWatch, watching
from servicekit.telemetry.tracing import span

EXEMPT_PREFIXES = ("/grpc.health.v1.", "/grpc.reflection.v1alpha.", "/grpc.reflection.v1.")
_CUT_S = 1.0

if TYPE_CHECKING:  # generic in its stubs only
    _Handler = grpc.RpcMethodHandler[Any, Any]

_Work = Callable[[IncomingCall], Awaitable[Any]]


class CallInterceptor(grpc.aio.ServerInterceptor):
    """Authenticates, bounds, traces, counts, logs, and turns every exception into a status.

    A cancelled call stays cancelled. Health and reflection need no credential and are neither counted nor logged.
    """

    def __init__(self, policy: RpcPolicy) -> None:
        self._policy = policy
        self._handlers: dict[str, _Handler] = {}
        self._subscriptions = _Subscriptions()

    async def intercept_service(
        self,
        continuation: Callable[[grpc.HandlerCallDetails], Awaitable["_Handler | None"]],
        handler_call_details: grpc.HandlerCallDetails,
    ) -> "_Handler | None":
        """The handler of the call's method, wrapped once and kept."""
        handler = await continuation(handler_call_details)
        if handler is None:
            return None
        method = handler_call_details.method
        wrapped = self._handlers.get(method)
        if wrapped is None:
            made = self._exempt(handler) if method.startswith(EXEMPT_PREFIXES) else self._guard(method, handler)
            wrapped = self._handlers[method] = made
        return wrapped

    def cut_subscriptions(self) -> None:
        """End them with UNAVAILABLE, so that their readers go to another replica; for the drain."""
        self._subscriptions.cut()

    def _exempt(self, handler: "_Handler") -> "_Handler":
        behaviour: Any = handler.unary_stream or handler.stream_stream
        if behaviour is None:
            return handler

        async def handle(received: Any, context: Any) -> None:
            try:
                with self._subscriptions.track():
                    await self._pump(behaviour(received, context), context)
            except BackendUnavailable as exc:
                await context.abort(grpc.StatusCode.UNAVAILABLE, exc.message)

        make = grpc.unary_stream_rpc_method_handler if handler.unary_stream else grpc.stream_stream_rpc_method_handler
        return make(handle, handler.request_deserializer, handler.response_serializer)

    def _guard(self, method: str, handler: "_Handler") -> "_Handler":
        """The same kind of handler on raw bytes: what does not parse must become INVALID_ARGUMENT."""
        metrics = MethodMetrics(method)
        parse, serialize = handler.request_deserializer, handler.response_serializer
        behaviour: Any = handler.unary_unary or handler.unary_stream or handler.stream_unary or handler.stream_stream

        async def work(call: IncomingCall, received: Any, context: Any) -> Any:
            streamed = handler.request_streaming
            request = _parsed(call, parse, received) if streamed else call.parse(parse, received)
            if handler.response_streaming:
                return await call.bounded(self._pump(behaviour(request, context), context))
            return call.encode(serialize, await call.bounded(behaviour(request, context)))

        async def handle(received: Any, context: Any) -> Any:
            call = IncomingCall(self._policy, method, metrics, context)
            return await self._run(call, context, lambda call: work(call, received, context))

        make: Any = {
            (False, False): grpc.unary_unary_rpc_method_handler,
            (False, True): grpc.unary_stream_rpc_method_handler,
            (True, False): grpc.stream_unary_rpc_method_handler,
            (True, True): grpc.stream_stream_rpc_method_handler,
        }[handler.request_streaming, handler.response_streaming]
        wrapped: _Handler = make(handle, None, serialize if handler.response_streaming else None)
        return wrapped

    async def _run(self, call: IncomingCall, context: Any, work: _Work) -> Any:
        with span(call.method, kind=SpanKind.SERVER, traceparent=call.traceparent()) as running:
            try:
                call.open()
                with self._subscriptions.track() if call.long_lived else nullcontext():
                    result = await work(call)
                call.succeed()
            except asyncio.CancelledError as exc:
                if not _cancelled_from_outside():
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
                if running.is_recording():
                    running.set_attributes({"rpc.system": "grpc", "rpc.grpc.status_code": call.code.value[0]})

    async def _pump(self, responses: Any, context: Any) -> None:
        """Write what the servicer yields; one that writes to the context by itself returns nothing to write."""
        if inspect.isawaitable(responses):
            responses = await responses
        if responses is None:
            return
        closing = aclosing(responses) if hasattr(responses, "aclose") else nullcontext()
        with watching(limit_s=self._policy.slow_reader_s) as watch:
            self._subscriptions.heed(watch)
            async with closing:
                async for response in responses:
                    watch.begin()
                    await context.write(response)
                    watch.end()
                    self._subscriptions.leave_if_cut(watch)

    async def _abort(self, call: IncomingCall, context: Any, error: BaseException) -> None:
        """End with the error's status; a reader that does not read cannot keep us from ending."""
        failure = call.fail(error)
        try:
            async with asyncio.timeout(_CUT_S):
                await context.abort(failure.code, failure.message, failure.trailers)
        except TimeoutError:
            raise asyncio.CancelledError from error


class _Subscriptions:
    """The streams that end only when the server does.

    A stream is cut between two messages: gRPC takes no status while it is still taking a message.
    """

    def __init__(self) -> None:
        self._watches: dict[asyncio.Task[Any], SlowReaderWatch | None] = {}
        self._cut = False

    def cut(self) -> None:
        """End them all; one that is writing ends as soon as it has written."""
        self._cut = True
        for task, watch in self._watches.items():
            if watch is None or not watch.writing:
                task.cancel()

    def heed(self, watch: SlowReaderWatch) -> None:
        """Know when the running task writes, if its stream is one of these."""
        if watch.task in self._watches:
            self._watches[watch.task] = watch

    def leave_if_cut(self, watch: SlowReaderWatch) -> None:
        """End a stream that was writing when the others were cut.

        Raises:
            BackendUnavailable: reason DRAINING.
        """
        if self._cut and watch.task in self._watches:
            raise _draining()

    @contextmanager
    def track(self) -> Iterator[None]:
        """Run the running task's stream; a cut becomes BackendUnavailable, the caller's own cancelling stays."""
        task = asyncio.current_task()
        assert task is not None
        self._watches[task] = None
        try:
            yield
        except asyncio.CancelledError as exc:
            if not self._cut:
                raise
            task.uncancel()
            raise _draining() from exc
        finally:
            del self._watches[task]


def _draining() -> BackendUnavailable:
    return BackendUnavailable("the server is shutting down; subscribe again", reason="DRAINING")


def _cancelled_from_outside() -> bool:
    """Whether the running task was asked to end (the RPC was cancelled), rather than something it awaited."""
    task = asyncio.current_task()
    return task is not None and task.cancelling() > 0


async def _parsed(call: IncomingCall, parse: Any, received: AsyncIterable[bytes]) -> AsyncIterator[Any]:
    async for raw in received:
        yield call.parse(parse, raw)
