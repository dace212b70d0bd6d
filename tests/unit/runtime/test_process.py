"""A service as a process: its help, its refusals, its signals, its exit status."""

import asyncio
import json
import os
import signal
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import grpc
import pytest
from opentelemetry.proto.collector.trace.v1 import trace_service_pb2, trace_service_pb2_grpc

PROGRAM = '''
"""A service of no RPC at all."""
import asyncio
from contextlib import asynccontextmanager
from servicekit.runtime.service import BackgroundTask, Service, run
from servicekit.runtime.settings import ServiceSettings, settings_config
from servicekit.telemetry.tracing import span

class Settings(ServiceSettings):
    model_config = settings_config("idle")
    port: int = 0
    drain_s: float = 0

@asynccontextmanager
async def adapter():
    yield
    print("closed", flush=True)

async def hang():
    print("draining", flush=True)
    await asyncio.Event().wait()

async def build(settings, stack):
    with span("building"):
        await stack.enter("adapter", adapter())
    return Service("idle", (), drain=(hang,) if settings.log_level == "debug" else ())

if __name__ == "__main__":
    run(Settings, build)
'''


@pytest.fixture
def start(tmp_path: Path):  # noqa: ANN201  # a context manager of the process
    """Starts the program with arguments and settings; killed if it is still there at the end."""
    file = tmp_path / "idle.py"
    file.write_text(PROGRAM)

    @asynccontextmanager
    async def launch(*arguments: str, **variables: str) -> AsyncIterator[asyncio.subprocess.Process]:
        process = await asyncio.create_subprocess_exec(
            sys.executable,
            str(file),
            *arguments,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
            env={**os.environ, **{f"BINNACLE_IDLE__{name}": value for name, value in variables.items()}},
        )
        try:
            yield process
        finally:
            if process.returncode is None:
                process.kill()
            await process.wait()

    return launch


async def ready(process: asyncio.subprocess.Process) -> dict[str, object]:
    """The fields of the line that says so."""
    assert process.stderr
    async with asyncio.timeout(30):
        while line := await process.stderr.readline():
            fields: dict[str, object] = json.loads(line)
            if fields["event"] == "service.ready":
                return fields
    raise AssertionError("ended before it was ready")


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
async def test_signal_ends_it_well(start, number: signal.Signals) -> None:  # noqa: ANN001  # the fixture above
    """On either signal the adapters are closed and the status is 0."""
    async with start() as process:
        fields = await ready(process)
        assert fields["port"]
        assert fields["metrics_port"]
        process.send_signal(number)
        out, _ = await asyncio.wait_for(process.communicate(), 20)
    assert process.returncode == 0
    assert b"closed" in out


async def test_only_a_second_interrupt_ends_it_at_once(start) -> None:  # noqa: ANN001  # the fixture above
    """A drain that hangs is left by a second Ctrl-C; a SIGTERM in between changes nothing."""
    async with start(LOG_LEVEL="debug") as process:
        await ready(process)
        process.send_signal(signal.SIGINT)
        assert await asyncio.wait_for(process.stdout.readline(), 20) == b"draining\n"
        process.send_signal(signal.SIGTERM)
        process.send_signal(signal.SIGINT)
        assert await asyncio.wait_for(process.wait(), 10) == 128 + signal.SIGINT


async def test_help_explains_the_settings(start) -> None:  # noqa: ANN001  # the fixture above
    """`--help` prints every variable and ends well; other arguments are refused."""
    async with start("--help") as process:
        out, _ = await process.communicate()
        assert (process.returncode, b"BINNACLE_IDLE__METRICS_PORT" in out) == (0, True)
    async with start("--port=1") as process:
        _, err = await process.communicate()
        assert (process.returncode, b"environment" in err) == (2, True)


@pytest.mark.parametrize(
    ("variables", "told"),
    [
        ({"PROT": "1", "GRACE_S": "soon"}, [b"did you mean BINNACLE_IDLE__PORT?", b"BINNACLE_IDLE__GRACE_S: "]),
        ({"TOKEN_PUBLIC_KEY_FILE": "/no/such.pem"}, [b"/no/such.pem"]),
    ],
)
async def test_bad_settings_are_told_in_clear_lines(start, variables, told) -> None:  # noqa: ANN001  # as above
    """One line per fault, status 2, no traceback."""
    async with start(**variables) as process:
        _, err = await process.communicate()
    assert process.returncode == 2
    assert all(part in err for part in told)
    assert b"Traceback" not in err
    assert len(err.splitlines()) == len(told)


async def test_spans_reach_the_collector(start) -> None:  # noqa: ANN001  # the fixture above
    """With an endpoint configured, spans are exported, the last ones at the stop."""
    received: list[tuple[str, str]] = []

    class Collector(trace_service_pb2_grpc.TraceServiceServicer):
        async def Export(self, request: Any, context: Any) -> Any:  # noqa: N802  # gRPC's name
            for resource in request.resource_spans:
                attributes = {one.key: one.value.string_value for one in resource.resource.attributes}
                for scope in resource.scope_spans:
                    received.extend((attributes["service.name"], one.name) for one in scope.spans)
            return trace_service_pb2.ExportTraceServiceResponse()

    server = grpc.aio.server()
    trace_service_pb2_grpc.add_TraceServiceServicer_to_server(Collector(), server)
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    async with start(OTLP_ENDPOINT=f"http://127.0.0.1:{port}") as process:
        await ready(process)
        process.terminate()
        await asyncio.wait_for(process.communicate(), 20)
    await server.stop(0)
    assert received == [("idle", "building")]


async def test_taken_port_ends_it_badly(start) -> None:  # noqa: ANN001  # the fixture above
    """A second process on the same port says so in one line and ends with status 1."""
    async with start() as first:
        port = str((await ready(first))["port"])
        async with start(PORT=port, METRICS_PORT="0") as second:
            _, err = await second.communicate()
    assert second.returncode == 1
    assert f"127.0.0.1:{port}".encode() in err
    assert b"Traceback" not in err
