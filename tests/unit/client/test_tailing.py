"""What `binnacle tail` takes and refuses before it asks any Kafka, and which events its conditions choose."""

from datetime import UTC, datetime

import pytest

from binnacle.events.v1.interaction_completed_pb2 import InteractionCompleted, InteractionOutcome
from binnacle.type.v1.chunk_pb2 import ChunkRef
from binnacle.type.v1.generation_pb2 import Usage
from binnacle_client.cli.main import cli
from binnacle_client.events import Event, Place
from binnacle_client.events.event import Delivery
from binnacle_client.events.json_lines import event_line
from binnacle_client.events.where import parse_condition
from binnacle_client.events.window import Window
from servicekit.domain.envelope import Envelope
from servicekit.errors import InvalidRequest, NotReady
from servicekit.events.dead_letters import Record
from servicekit.events.topics import INTERACTION_COMPLETED

_TIME = datetime(2025, 6, 1, 14, tzinfo=UTC)


async def _settle(delivery: Delivery) -> bool:
    return True


def _event(*, tombstone: bool = False) -> Event[InteractionCompleted]:
    payload = InteractionCompleted(
        request_id="r1",
        outcome=InteractionOutcome.INTERACTION_OUTCOME_BLOCKED,
        usage=Usage(input_tokens=12),
        chunks=[ChunkRef(document_id="d1"), ChunkRef(document_id="d2")],
        labels={"team": "a=b"},
        variant_probability=0.5,
    )
    payload.accept_time.FromDatetime(_TIME)
    record = Record(INTERACTION_COMPLETED, 3, 7, b"r1", None if tombstone else b"", (), _TIME)
    return Event(
        payload=InteractionCompleted() if tombstone else payload,
        envelope=Envelope("e1", "gateway", "t", "acme", "p1", 42),
        place=Place(INTERACTION_COMPLETED, 3, 7),
        key="r1",
        time=_TIME,
        tombstone=tombstone,
        delivery=Delivery(record, Window(0)),
        settle=_settle,
    )


@pytest.mark.parametrize(
    "text",
    [
        "request_id=r1",
        "outcome=INTERACTION_OUTCOME_BLOCKED",
        "usage.input_tokens=12",
        "chunks.document_id=d2",
        "labels.team=a=b",
        "variant_probability=0.5",
        "accept_time=2025-06-01T14:00:00Z",
        "retracted=false",
        "cost_microusd=0",
        "answer=",
        "key=r1",
        "ce_tenant=acme",
        "ce_sequence=42",
    ],
)
def test_a_condition_holds(text: str) -> None:
    """Fields at any depth, any element of a repeated one, keys of maps, defaults, headers and the key."""
    assert parse_condition(text, message_type=InteractionCompleted).holds(_event())


@pytest.mark.parametrize(
    "text", ["request_id=r", "outcome=2", "chunks.document_id=d3", "labels.other=", "retracted=true", "ce_tenant=ACME"]
)
def test_a_condition_does_not_hold(text: str) -> None:
    """Values are compared whole, as JSON writes them."""
    assert not parse_condition(text, message_type=InteractionCompleted).holds(_event())


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("outcme=1", "InteractionCompleted has no field 'outcme'; there are ce_id"),
        ("usage.tokens=1", "Usage has no field 'tokens'"),
        ("answer.length=1", "answer has no fields"),
        ("ce_time=1", "no field 'ce_time'"),
        ("outcome", "field=value"),
    ],
)
def test_a_condition_on_nothing_is_refused(text: str, told: str) -> None:
    """A misspelt field would otherwise wait for ever."""
    with pytest.raises(InvalidRequest, match=told):
        parse_condition(text, message_type=InteractionCompleted)


def test_a_tombstone_has_no_value() -> None:
    """The line of a deleted key says null, not an empty message."""
    assert event_line(_event(tombstone=True))["value"] is None
    assert event_line(_event())["time"] == "2025-06-01T14:00:00.000+00:00"


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (["inter", "--since", "yesterday"], "15m"),
        (["inter", "--since", "1h", "--from-beginning"], "not both"),
        (["inter", "--where", "outcome"], "field=value"),
        (["nothing"], "no topic matches"),
        (["evaluation"], "2 topics match"),
    ],
)
def test_mistakes_are_told(monkeypatch: pytest.MonkeyPatch, arguments: list[str], told: str) -> None:
    """Each is refused before anything is asked for."""
    monkeypatch.setenv("KAFKA_BOOTSTRAP_SERVERS", "127.0.0.1:1")
    with pytest.raises(InvalidRequest, match=told):
        cli.main(["tail", *arguments], standalone_mode=False)


def test_without_an_address_the_fix_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    """No Kafka is known: the message says how to name one."""
    monkeypatch.delenv("KAFKA_BOOTSTRAP_SERVERS", raising=False)
    monkeypatch.setenv("BINNACLE_STACK_FILE", "/nowhere/stack.json")
    monkeypatch.setenv("BINNACLE_TARGET", "127.0.0.1:1")
    monkeypatch.setenv("BINNACLE_API_KEY", "k")
    with pytest.raises(NotReady, match="KAFKA_BOOTSTRAP_SERVERS"):
        cli.main(["tail", "interaction"], standalone_mode=False)
