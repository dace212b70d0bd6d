"""A gateway whose Redis is away answers without histories, and refuses only what needs the store."""

from pathlib import Path

import grpc
import pytest

from binnacle.gateway.v1 import gateway_service_pb2 as pb
from tests.integration.gateway_stack import running_gateway


async def test_questions_are_answered_without_history(tmp_path: Path, unused_tcp_port: int) -> None:
    """Serving, with `no_history` told; an idempotency key is UNAVAILABLE, and its question not answered."""
    url = f"redis://127.0.0.1:{unused_tcp_port}/0?timeout_s=0.5"
    async with running_gateway(tmp_path, state_store_url=url) as gateway:

        async def ask(**fields: str) -> pb.Answer:
            request = pb.AnswerQuestionRequest(question=pb.Question(text="What is kept?", **fields))
            answer: pb.Answer = (await gateway.stub.AnswerQuestion(request, metadata=gateway.auth())).answer
            return answer

        plain = await ask()
        continued = await ask(conversation_id="c-1")
        with pytest.raises(grpc.aio.AioRpcError) as failed:
            await ask(idempotency_key="k")
        records = gateway.interactions()
    assert plain.outcome == continued.outcome == pb.OUTCOME_ANSWERED
    assert [one.rung for one in plain.degradations] == []
    assert [(one.rung, one.cause) for one in continued.degradations] == [("no_history", "STATE_STORE_UNAVAILABLE")]
    assert failed.value.code() is grpc.StatusCode.UNAVAILABLE
    assert len(records) == 2
