"""Programs that know nothing of Binnacle read the stack: health and reflection clients, clickhouse-connect, kcat."""

import shutil
import subprocess
import time

import clickhouse_connect
import grpc
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection_pb2, reflection_pb2_grpc

from binnacle_client.connection import SERVICES
from tests.e2e.conftest import RunningStack

_NAMES = {name: f"binnacle.{name}.v1.{name.title().replace('_', '')}Service" for name in SERVICES}


@pytest.mark.parametrize("service", SERVICES)
def test_reflection_lists_the_service(stack: RunningStack, service: str) -> None:
    """A reflection client finds each service by its full name, beside health."""
    with grpc.insecure_channel(stack.connection.target(service)) as channel:
        stub = reflection_pb2_grpc.ServerReflectionStub(channel)
        request = reflection_pb2.ServerReflectionRequest(list_services="")
        (response,) = stub.ServerReflectionInfo(iter([request]), timeout=10)
    listed = {entry.name for entry in response.list_services_response.service}
    assert {_NAMES[service], "grpc.health.v1.Health"} <= listed


@pytest.mark.parametrize("service", SERVICES)
def test_health_answers_per_service_name(stack: RunningStack, service: str) -> None:
    """Health knows the service's name and the empty one, and no other."""
    with grpc.insecure_channel(stack.connection.target(service)) as channel:
        stub = health_pb2_grpc.HealthStub(channel)
        for name in ("", _NAMES[service]):
            response = stub.Check(health_pb2.HealthCheckRequest(service=name), timeout=10)
            assert response.status == health_pb2.HealthCheckResponse.SERVING
        with pytest.raises(grpc.RpcError) as refused:
            stub.Check(health_pb2.HealthCheckRequest(service="no.such.Service"), timeout=10)
    assert refused.value.code() is grpc.StatusCode.NOT_FOUND


def test_clickhouse_connect_reads_the_interaction(stack: RunningStack) -> None:
    """Any ClickHouse client finds an answered question, once."""
    answer = stack.binnacle_json("ask", "Which spheres correct for soft iron?")[-1]["answer"]
    client = clickhouse_connect.get_client(dsn=stack.connection.clickhouse_url)
    rows: list[tuple[str, str]] = []
    deadline = time.monotonic() + 20
    while not rows and time.monotonic() < deadline:
        rows = client.query(
            "SELECT request_id, answer FROM interactions WHERE request_id = {id:String}",
            parameters={"id": answer["request_id"]},
        ).result_rows
        time.sleep(0.2)
    client.close()
    assert [tuple(row) for row in rows] == [(answer["request_id"], answer["text"])]


@pytest.mark.skipif(shutil.which("kcat") is None, reason="kcat is not installed")
def test_kcat_reads_the_topic(stack: RunningStack) -> None:
    """Kcat reads keys and headers of the interactions."""
    answer = stack.binnacle_json("ask", "What does the deviation card list?")[-1]["answer"]
    servers = stack.connection.kafka_bootstrap_servers
    done = subprocess.run(
        ["kcat", "-b", servers, "-C", "-e", "-q", "-t", "binnacle.interaction.completed.v1", "-f", "%k %h\\n"],
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
    )
    (line,) = [line for line in done.stdout.splitlines() if line.startswith(answer["request_id"])]
    assert "ce_type=binnacle.events.v1.InteractionCompleted" in line
