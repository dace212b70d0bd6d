"""ClickHouse's HTTP interface over the embedded engine: what its drivers, curl and Grafana send and expect.

Served by `services.local.clickhouse_front`; `receiving.py` and `request.py` read, `engine.py` runs, `answer.py` shapes.
"""

import asyncio
from collections.abc import Coroutine

from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.middleware.trustedhost import TrustedHostMiddleware
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response
from starlette.routing import Route

from services.local.clickhouse.access import Access
from services.local.clickhouse.answer import answer, error_response
from services.local.clickhouse.body import BodyMemory
from services.local.clickhouse.engine import Engine
from services.local.clickhouse.errors import EngineError, refusal
from services.local.clickhouse.receiving import receive_body
from services.local.clickhouse.request import credentials, read_request
from services.local.clickhouse.worker import QueryRunner

_LOOPBACK_NAMES = ("127.0.0.1", "localhost")


def create_app(engine: Engine, runner: QueryRunner, *, access: Access, memory: BodyMemory) -> Starlette:
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
            raise refusal("web pages are answered only where a password is set", code=497, name="ACCESS_DENIED")
        user, password = credentials(parameters, headers)
        if not access.allows(user, password):
            raise refusal(
                f"{user}: Authentication failed: password is incorrect, or there is no user with such name",
                code=516,
                name="AUTHENTICATION_FAILED",
            )
        encoding = headers.get("content-encoding", "")
        asked = read_request(
            method=request.method,
            parameters=parameters,
            headers=headers,
            body=await receive_body(request.stream(), encoding=encoding, memory=memory),
        )
        if asked is None:
            return PlainTextResponse("Ok.\n")
        return await _while_connected(request, answer(engine, runner, asked))

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


async def _while_connected(request: Request, work: Coroutine[None, None, Response]) -> Response:
    """What `work` returns; it is cancelled when the client leaves before."""
    working = asyncio.ensure_future(work)
    leaving = asyncio.ensure_future(request.receive())
    try:
        await asyncio.wait({working, leaving}, return_when=asyncio.FIRST_COMPLETED)
        if not working.done():
            raise refusal("the client left", code=210, name="NETWORK_ERROR")
        return working.result()
    finally:
        working.cancel()
        leaving.cancel()
        del working  # its exception would keep this frame, and this frame the rows of an insert
