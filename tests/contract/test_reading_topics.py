"""What `protos/README.md` tells consumers to type works as it stands there, and `binnacle tail` keeps its word."""

import asyncio
import json
import os
import re
import shutil
import sys
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from aiokafka import AIOKafkaProducer

from binnacle.events.v1.interaction_completed_pb2 import InteractionCompleted, InteractionOutcome
from servicekit.domain.envelope import Envelope
from servicekit.events.codec import encode_headers
from servicekit.events.topics import INTERACTION_COMPLETED
from services.local.broker import run_broker

_ROOT = Path(__file__).parent.parent.parent
_README = (_ROOT / "protos" / "README.md").read_text(encoding="utf-8")
_WITHIN_S = 60.0
_BLOCKED = InteractionOutcome.INTERACTION_OUTCOME_BLOCKED


@pytest.fixture
async def kafka() -> AsyncIterator[str]:
    """A broker of its own for each test, with two interactions on it and a record that is none between them."""
    async with run_broker() as broker:
        await fill(broker.bootstrap)
        yield broker.bootstrap


async def fill(kafka: str) -> None:
    """An answered interaction of acme's, a record that is no event, a blocked one of globex's and one of acme's."""
    async with AIOKafkaProducer(bootstrap_servers=kafka) as producer:
        for name, tenant, interaction in (
            ("r1", "acme", InteractionCompleted(request_id="r1", cost_microusd=1234, query_vector_fp16=b"\x00\xff")),
            ("", "", None),
            ("r2", "globex", InteractionCompleted(request_id="r2", outcome=_BLOCKED)),
            ("r3", "acme", InteractionCompleted(request_id="r3", outcome=_BLOCKED, retracted=True)),
        ):
            envelope = Envelope(name, "gateway", InteractionCompleted.DESCRIPTOR.full_name, tenant, "p1", 1)
            await producer.send_and_wait(
                INTERACTION_COMPLETED,
                b"not an event" if interaction is None else interaction.SerializeToString(),
                key=name.encode(),
                headers=[] if interaction is None else list(encode_headers(envelope)),
                partition=0,
            )


def _block(name: str) -> str:
    """The code block of that name in the README."""
    (found,) = re.findall(rf"^```\w+ {name}\n(.*?)^```", _README, re.DOTALL | re.MULTILINE)
    return str(found)


def _environ(kafka: str, tmp_path: Path) -> dict[str, str]:
    """An environment in which `binnacle` and `protoc` are found, and no stack but this broker."""
    shim = tmp_path / "protoc"
    shim.write_text(f'#!/bin/sh\nexec {sys.executable} -m grpc_tools.protoc "$@"\n', encoding="utf-8")
    shim.chmod(0o755)
    path = os.pathsep.join([str(tmp_path), str(Path(sys.executable).parent), os.environ["PATH"]])
    kept = {name: value for name, value in os.environ.items() if not name.startswith("BINNACLE_")}
    return {**kept, "PATH": path, "KAFKA_BOOTSTRAP_SERVERS": kafka}


async def _run(*command: str, kafka: str, tmp_path: Path) -> tuple[int, str, str]:
    process = await asyncio.create_subprocess_exec(
        *command,
        cwd=_ROOT,
        env=_environ(kafka, tmp_path),
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    try:
        async with asyncio.timeout(_WITHIN_S):
            output, errors = await process.communicate()
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()
    assert process.returncode is not None
    return process.returncode, output.decode(), errors.decode()


async def _shell(script: str, *, kafka: str, tmp_path: Path) -> str:
    """What the script prints; it must succeed, every command of it."""
    status, output, errors = await _run("bash", "-euo", "pipefail", "-c", script, kafka=kafka, tmp_path=tmp_path)
    assert status == 0, errors
    return output


async def _tail(*arguments: str, kafka: str, tmp_path: Path) -> list[dict[str, Any]]:
    status, output, errors = await _run(
        "binnacle", "tail", "interaction", "--from-beginning", "--json", *arguments, kafka=kafka, tmp_path=tmp_path
    )
    assert status == 0, errors
    return [json.loads(line) for line in output.splitlines()]


@pytest.mark.skipif(shutil.which("jq") is None, reason="jq is not installed")
async def test_documented_tail(kafka: str, tmp_path: Path) -> None:
    """The README's `binnacle tail` prints the event, and its JSON gives tenant and cost to jq."""
    output = await _shell(_block("tail"), kafka=kafka, tmp_path=tmp_path)
    assert '"request_id": "r1"' in output
    assert output.splitlines()[-2:] == ["acme", "1234"]


@pytest.mark.skipif(shutil.which("kcat") is None, reason="kcat is not installed")
async def test_documented_kcat(kafka: str, tmp_path: Path) -> None:
    """The README's kcat lists keys and headers; protoc decodes with the descriptor set."""
    output = await _shell(_block("kcat"), kafka=kafka, tmp_path=tmp_path)
    assert "0:0 r1 ce_specversion=1.0,ce_id=r1,ce_source=gateway" in output
    assert 'request_id: "r1"' in output
    assert "cost_microusd: 1234" in output


async def test_documented_consumer(kafka: str, tmp_path: Path) -> None:
    """The README's consumer prints tenant and cost, names the record that is no event, and goes on."""
    script = tmp_path / "billing.py"
    script.write_text(_block("billing"), encoding="utf-8")
    process = await asyncio.create_subprocess_exec(
        sys.executable, str(script), env=_environ(kafka, tmp_path), stdout=asyncio.subprocess.PIPE
    )
    assert process.stdout is not None
    try:
        async with asyncio.timeout(_WITHIN_S):
            lines = [(await process.stdout.readline()).decode().strip() for _ in range(4)]
    finally:
        process.kill()
        await process.communicate()
    assert lines[0] == "acme 1234"
    assert lines[1].startswith(f"{INTERACTION_COMPLETED}[0]@1 is no event: the record lacks the headers")
    assert lines[2:] == ["globex 0", "acme 0"]


async def test_a_line_holds_envelope_and_value(kafka: str, tmp_path: Path) -> None:
    """One JSON object an event: place, key, envelope, fields by their own names, bytes in Base64."""
    (line,) = await _tail("--limit", "1", kafka=kafka, tmp_path=tmp_path)
    assert (line["topic"], line["partition"], line["offset"], line["key"]) == (INTERACTION_COMPLETED, 0, 0, "r1")
    assert line["envelope"] == {
        "id": "r1",
        "source": "gateway",
        "type": "binnacle.events.v1.InteractionCompleted",
        "tenant": "acme",
        "producer": "p1",
        "sequence": 1,
        "traceparent": "",
    }
    assert line["value"] == {"request_id": "r1", "cost_microusd": "1234", "query_vector_fp16": "AP8="}


async def test_what_is_no_event_is_a_line_too(kafka: str, tmp_path: Path) -> None:
    """A record that does not parse is printed with the reason and its bytes."""
    lines = await _tail("--limit", "2", kafka=kafka, tmp_path=tmp_path)
    assert lines[1]["rejected"]["stage"] == "envelope"
    assert lines[1]["value_base64"] == "bm90IGFuIGV2ZW50"


async def test_where_chooses(kafka: str, tmp_path: Path) -> None:
    """Only events of which every condition holds, of their fields and headers; what is no event is left out."""
    wheres = ("--where", "outcome=INTERACTION_OUTCOME_BLOCKED", "--where", "ce_tenant=acme")
    (line,) = await _tail(*wheres, "--limit", "1", kafka=kafka, tmp_path=tmp_path)
    assert line["value"]["request_id"] == "r3"


async def test_a_group_goes_on_behind_what_was_printed(kafka: str, tmp_path: Path) -> None:
    """With --group a second run continues where the first one stopped."""
    (first,) = await _tail("--group", "g", "--limit", "1", kafka=kafka, tmp_path=tmp_path)
    (second,) = await _tail("--group", "g", "--limit", "1", kafka=kafka, tmp_path=tmp_path)
    assert (first["offset"], second["offset"]) == (0, 1)


async def test_a_broker_without_times_is_told(kafka: str, tmp_path: Path) -> None:
    """On the embedded broker --since is an error of one line that says what to do, and an exit status."""
    status, output, errors = await _run("binnacle", "tail", "inter", "--since", "1h", kafka=kafka, tmp_path=tmp_path)
    assert (status, output) == (5, "")
    assert "run the stack on a real Kafka" in errors.replace("\n", " ")


@pytest.mark.servers
async def test_documented_tail_since(real_kafka: str, tmp_path: Path) -> None:
    """The README's replay from a time finds the blocked interaction of acme's, on a Kafka that looks up times."""
    await fill(real_kafka)
    (line,) = (await _shell(_block("since"), kafka=real_kafka, tmp_path=tmp_path)).splitlines()
    assert json.loads(line)["value"]["request_id"] == "r3"
