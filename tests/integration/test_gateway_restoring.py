"""Values put back from end to end: the gateway in front of a real guardrail, over gRPC and HTTP."""

import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import grpc
import httpx
import pytest

from binnacle.gateway.v1 import gateway_service_pb2 as pb
from servicekit.rpc.api_keys import create_key
from servicekit.testing.in_process import Trust, running_service
from services.guardrail import bootstrap
from services.guardrail.config import Settings
from tests.integration.gateway_stack import Backends, RunningGateway, running_gateway

ADDRESS = "ada@analytical.org"
SAYS = ("You are ", "[EMAIL", "_1", "]. ", "See [1].")
RESTORED = f"You are {ADDRESS}. See [1]."
REDACTED = "You are [EMAIL_1]. See [1]."


@asynccontextmanager
async def stack(folder: Path) -> AsyncIterator[tuple[RunningGateway, str]]:
    """A gateway with a guardrail of its own, and a key that carries `restore`."""
    folder.joinpath("guardrail").mkdir()
    trust = Trust.create(folder)
    settings = Settings(
        port=0,
        metrics_port=0,
        drain_s=0,
        event_bus_url="memory://",
        state_dir=folder / "guardrail",
        allow_memory_vault=True,
        token_public_key_file=trust.public_key_file,
    )
    async with running_service(settings, bootstrap.build) as guard:
        _, key = create_key(folder / "api_keys.json", tenant="acme", scopes=["answer", "restore"])
        target = f"127.0.0.1:{guard.port}"
        async with running_gateway(folder, Backends(tokens=SAYS), guardrail_target=target) as gateway:
            yield gateway, key


def question(**changes: Any) -> pb.Question:
    """Who am I, with the values put back."""
    values = {"text": f"I am {ADDRESS}. Who am I?", "conversation_id": "c-1", "restore_pii": True}
    return pb.Question(**{**values, **changes})


async def test_a_stream_tells_values_and_the_record_does_not(tmp_path: Path) -> None:
    """Tokens joined are the completed answer, restored; its citation stands at its marker; the event is redacted."""
    async with stack(tmp_path) as (gateway, key):
        call = gateway.stub.StreamAnswer(pb.StreamAnswerRequest(question=question()), metadata=gateway.auth(key))
        events = [event async for event in call]
        (record,) = gateway.interactions()
    tokens = "".join(event.token.text for event in events if event.HasField("token"))
    answer = events[-1].completed.answer
    assert tokens == answer.text == RESTORED
    (cited,) = answer.citations
    assert answer.text[cited.answer_span.start : cited.answer_span.end] == "[1]"
    assert (record.query, record.answer) == ("I am [EMAIL_1]. Who am I?", REDACTED)
    assert "analytical" not in str(record)
    (asked,) = gateway.backends.requests("GenerateAnswer")
    assert "analytical" not in str(asked)


async def test_a_repeat_and_the_next_turn(tmp_path: Path) -> None:
    """A repeat is restored again or stays redacted, as it asks; the history that engines get is redacted."""
    async with stack(tmp_path) as (gateway, key):

        async def ask(**changes: Any) -> Any:
            request = pb.AnswerQuestionRequest(question=question(idempotency_key="k", **changes))
            return (await gateway.stub.AnswerQuestion(request, metadata=gateway.auth(key))).answer

        first, again, plain = await ask(), await ask(), await ask(restore_pii=False)
        following = pb.AnswerQuestionRequest(question=question(text="And now?"))
        later = (await gateway.stub.AnswerQuestion(following, metadata=gateway.auth(key))).answer
    assert [answer.text for answer in (first, again, plain, later)] == [RESTORED, RESTORED, REDACTED, RESTORED]
    assert [answer.replayed for answer in (first, again, plain)] == [False, True, True]
    history = gateway.backends.requests("GenerateAnswer")[-1].history
    assert [message.content for message in history] == ["I am [EMAIL_1]. Who am I?", REDACTED]


async def test_without_the_scope_it_is_refused(tmp_path: Path) -> None:
    """PERMISSION_DENIED, and nothing is recorded."""
    async with stack(tmp_path) as (gateway, _):
        request = pb.AnswerQuestionRequest(question=question())
        with pytest.raises(grpc.aio.AioRpcError) as failed:
            await gateway.stub.AnswerQuestion(request, metadata=gateway.auth())
        assert gateway.interactions() == []
    assert failed.value.code() is grpc.StatusCode.PERMISSION_DENIED


@pytest.mark.parametrize("streamed", [False, True])
async def test_over_http_the_extra_field_asks_for_it(tmp_path: Path, streamed: bool) -> None:
    """`binnacle.restore_pii` as in gRPC: 403 without the scope."""
    body = {
        "messages": [{"role": "user", "content": f"I am {ADDRESS}. Who am I?"}],
        "stream": streamed,
        "binnacle": {"restore_pii": True, "conversation_id": "c-1"},
    }
    async with stack(tmp_path) as (gateway, key), httpx.AsyncClient(base_url=gateway.http_url, timeout=10) as client:
        allowed = await client.post("/chat/completions", json=body, headers={"authorization": f"Bearer {key}"})
        refused = await client.post(
            "/chat/completions", json=body, headers={"authorization": f"Bearer {gateway.api_key}"}
        )
    assert refused.status_code == 403
    assert allowed.status_code == 200
    if streamed:
        lines = [line.removeprefix("data: ") for line in allowed.text.splitlines() if line.startswith("data: {")]
        said = "".join(json.loads(line)["choices"][0]["delta"].get("content", "") for line in lines)
    else:
        said = allowed.json()["choices"][0]["message"]["content"]
    assert said == RESTORED
