"""The guardrail while Kafka is away: every check is answered, and every decision arrives when Kafka is back."""

import asyncio
from pathlib import Path

from aiokafka import AIOKafkaConsumer

from binnacle.events.v1.guardrail_decided_pb2 import GuardrailDecided
from binnacle.guardrail.v1 import guardrail_service_pb2 as rpc
from binnacle.guardrail.v1 import guardrail_service_pb2_grpc as stubs
from servicekit.events.topics import GUARDRAIL_DECIDED
from servicekit.testing.in_process import Trust, caller, channel_to, running_service
from services.guardrail.bootstrap import build
from services.guardrail.config import Settings
from tests.kafka_harness import broker_process, free_port

_CHECKS = 300


async def test_checks_go_on_and_decisions_arrive_later(tmp_path: Path) -> None:
    """It starts and serves without Kafka; no check fails, though the queue in memory is far smaller than needed."""
    port, trust = free_port(), Trust.create(tmp_path)
    settings = Settings(
        port=0,
        metrics_port=0,
        drain_s=0,
        decision_queue=20,
        event_bus_url=f"kafka://127.0.0.1:{port}",
        state_dir=tmp_path / "state",
        allow_memory_vault=True,
        token_public_key_file=trust.public_key_file,
    )
    async with running_service(settings, build) as lifecycle, channel_to(lifecycle, trust) as channel:
        stub = stubs.GuardrailServiceStub(channel)
        with caller(tenant="acme", scopes=["guard"]):
            for first in range(0, _CHECKS, 50):
                await asyncio.gather(*(_check(stub, number) for number in range(first, first + 50)))
        assert lifecycle.readiness is not None
        await lifecycle.readiness.check()
        assert lifecycle.readiness.states["event_bus"].ok
    async with broker_process(port), running_service(settings, build):
        assert await _read(f"127.0.0.1:{port}") == {f"r-{number}" for number in range(_CHECKS)}


async def _check(stub: stubs.GuardrailServiceStub, number: int) -> None:
    context = rpc.CheckContext(request_id=f"r-{number}")
    await stub.CheckInput(rpc.CheckInputRequest(text="Are dicts ordered?", context=context))


async def _read(bootstrap: str) -> set[str]:
    """The requests of the decisions that arrive, until all are there."""
    found = set[str]()
    consumer = AIOKafkaConsumer(GUARDRAIL_DECIDED, bootstrap_servers=bootstrap, auto_offset_reset="earliest")
    async with consumer, asyncio.timeout(20):
        while len(found) < _CHECKS:
            record = await consumer.getone()
            found.add(GuardrailDecided.FromString(record.value).request_id)
    return found
