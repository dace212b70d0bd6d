"""ClickHouse's HTTP interface over the embedded engine: what its drivers, curl and Grafana send and expect.

Served by `services.local.clickhouse_front`; `request.py` reads, `engine.py` runs, `answer.py` shapes.
"""

from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.middleware.trustedhost import TrustedHostMiddleware
from starlette.requests import ClientDisconnect, Request
from starlette.responses import PlainTextResponse, Response
from starlette.routing import Route

from services.local.clickhouse.access import Access
from services.local.clickhouse.answer import answer, error_response
from services.local.clickhouse.engine import Engine, EngineError
from services.local.clickhouse.request import credentials, read_request
from services.local.clickhouse.worker import QueryRunner

_LOOPBACK_NAMES = ("127.0.0.1", "localhost")


def create_app(engine: Engine, runner: QueryRunner, *, access: Access, max_body_bytes: int) -> Starlette:
    """The ASGI application: `/` runs queries, `/ping` and `/replicas_status` answer `Ok`."""

    async def query(request: Request) -> Response:
        try:
            return await _run(request)
        except EngineError as error:
            return error_response(error, query_id=request.query_params.get("query_id"))

    async def _run(request: Request) -> Response:
        parameters = dict(request.query_params)
        headers = {name.lower(): value for name, value in request.headers.items()}
        if not access.trusts_page(headers.get("origin")):
            text = "Code: 497. DB::Exception: web pages are answered only where a password is set. (ACCESS_DENIED)"
            raise EngineError(text, code=497)
        user, password = credentials(parameters, headers)
        if not access.allows(user, password):
            text = (
                f"Code: 516. DB::Exception: {user}: Authentication failed: password is incorrect, "
                "or there is no user with such name. (AUTHENTICATION_FAILED)"
            )
            raise EngineError(text, code=516)
        asked = read_request(
            method=request.method,
            parameters=parameters,
            headers=headers,
            body=await _bounded_body(request, limit_bytes=max_body_bytes),
        )
        return PlainTextResponse("Ok.\n") if asked is None else await answer(engine, runner, asked)

    async def ping(_request: Request) -> Response:
        return PlainTextResponse("Ok.\n")

    return Starlette(
        routes=[
            Route("/", query, methods=["GET", "POST"]),
            Route("/ping", ping),
            Route("/replicas_status", ping),
        ],
        # Without a password, no name that somebody else's DNS points at this machine.
        middleware=[] if access.password else [Middleware(TrustedHostMiddleware, allowed_hosts=_LOOPBACK_NAMES)],
    )


async def _bounded_body(request: Request, *, limit_bytes: int) -> bytes:
    parts: list[bytes] = []
    size = 0
    try:
        async for part in request.stream():
            size += len(part)
            if size > limit_bytes:
                text = (
                    f"Code: 307. DB::Exception: the request body exceeds {limit_bytes} bytes: "
                    "insert in smaller batches. (TOO_MANY_BYTES)"
                )
                raise EngineError(text, code=307)
            parts.append(part)
    except ClientDisconnect as error:
        raise EngineError("Code: 210. DB::Exception: the client left. (NETWORK_ERROR)", code=210) from error
    return b"".join(parts)
