"""Bounds of a question: the field, the value and the fix are named, and texts stay out of the message."""

from typing import Any

import pytest

from binnacle.gateway.v1 import gateway_service_pb2 as pb
from binnacle.type.v1 import generation_pb2, text_pb2
from servicekit.domain.prompt import Message, Role
from servicekit.errors import InvalidRequest
from services.gateway.convert import question_of
from services.gateway.question import Channel, Question, RetrievalMode
from services.gateway.validation import validate_question


@pytest.mark.parametrize(
    ("changes", "field"),
    [
        ({"text": ""}, "question.text"),
        ({"text": " \n\t"}, "question.text"),
        ({"text": "x" * 8_193}, "question.text"),
        ({"top_k": -1}, "question.top_k"),
        ({"top_k": 51}, "question.top_k"),
        ({"idempotency_key": "k" * 129}, "question.idempotency_key"),
        ({"conversation_id": "a\x00b"}, "question.conversation_id"),
        ({"project": "p" * 65}, "question.project"),
        ({"route": "r" * 65}, "question.route"),
        ({"labels": {f"k{n}": "v" for n in range(17)}}, "question.labels"),
        ({"labels": {"Upper": "v"}}, "question.labels"),
        ({"labels": {"k": "v" * 257}}, "question.labels[k]"),
        ({"history": (Message(Role.USER, "m"),) * 65}, "question.history"),
        ({"history": (Message(Role.USER, " "),)}, "question.history[0].content"),
    ],
)
def test_bounds_name_their_field(changes: dict[str, Any], field: str) -> None:
    """Every broken bound names its field, in `field` and in the message."""
    with pytest.raises(InvalidRequest) as caught:
        validate_question(Question(**{"text": "What?", **changes}))
    assert caught.value.field == field
    assert field.partition("[")[0] in caught.value.message


def test_what_was_asked_stays_out_of_the_message() -> None:
    """An oversize question is refused without repeating it."""
    with pytest.raises(InvalidRequest) as caught:
        validate_question(Question("secret " * 2_000))
    assert "secret" not in caught.value.message


def test_a_question_at_its_bounds_passes() -> None:
    """The largest question that is allowed is allowed."""
    validate_question(
        Question("x" * 8_192, top_k=50, labels={"a.b-c_9": "v" * 256}, history=(Message(Role.USER, "m"),) * 64)
    )


@pytest.mark.parametrize(
    ("sampling", "field"),
    [
        ({"temperature": -3.0}, "question.sampling.temperature"),
        ({"temperature": float("nan")}, "question.sampling.temperature"),
        ({"top_p": 0.0}, "question.sampling.top_p"),
        ({"max_output_tokens": 2**31 - 1}, "question.sampling.max_output_tokens"),
        ({"stop": ["x"] * 5}, "question.sampling.stop"),
    ],
)
def test_sampling_is_bounded(sampling: dict[str, Any], field: str) -> None:
    """Absurd sampling is refused with the path of the field."""
    message = pb.Question(text="What?", sampling=generation_pb2.Sampling(**sampling))
    with pytest.raises(InvalidRequest) as caught:
        question_of(message, channel=Channel.GRPC)
    assert caught.value.field == field


def test_unknown_enum_numbers_are_refused() -> None:
    """A role or a mode that the proto does not know is refused."""
    role = pb.Question(text="What?", history=[text_pb2.Message(content="hi")])
    with pytest.raises(InvalidRequest, match="role"):
        question_of(role, channel=Channel.GRPC)
    mode = pb.Question(text="What?")
    mode.retrieval_mode = 99  # type: ignore[assignment]  # protobuf keeps unknown numbers
    with pytest.raises(InvalidRequest, match="retrieval_mode"):
        question_of(mode, channel=Channel.GRPC)


def test_defaults_are_filled_in() -> None:
    """Empty project and route become `default`."""
    question = question_of(pb.Question(text="What?"), channel=Channel.GRPC)
    assert (question.project, question.route) == ("default", "default")
    assert question.retrieval_mode is RetrievalMode.ROUTE
    assert question.filter is None


def test_fingerprint_tells_questions_under_one_key_apart() -> None:
    """The same question has the same fingerprint, another question another."""
    first = question_of(pb.Question(text="a", idempotency_key="k", labels={"x": "1", "y": "2"}), channel=Channel.GRPC)
    same = question_of(pb.Question(text="a", idempotency_key="k", labels={"y": "2", "x": "1"}), channel=Channel.GRPC)
    other = question_of(pb.Question(text="b", idempotency_key="k"), channel=Channel.GRPC)
    assert first.fingerprint == same.fingerprint != other.fingerprint
