"""`binnacle dlq` against the running stack: what was refused is listed, shown and replayed, and no count changes."""

import asyncio
import time
from collections.abc import Callable

from aiokafka import AIOKafkaProducer
from clickhouse_connect import get_client

from binnacle.events.v1.feedback_recorded_pb2 import FeedbackRecorded
from servicekit.domain.envelope import Envelope
from servicekit.events.codec import encode_headers
from servicekit.events.topics import FEEDBACK_RECORDED
from tests.e2e.conftest import RunningStack

_WITHIN_S = 30


def _until(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + _WITHIN_S
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.3)


async def _send(servers: str, *, event_id: str, value: bytes) -> None:
    envelope = Envelope(
        id=event_id,
        source="upstream",
        type=FeedbackRecorded.DESCRIPTOR.full_name,
        tenant="local",
        producer="upstream-1",
        sequence=1,
    )
    async with AIOKafkaProducer(bootstrap_servers=servers) as producer:
        await producer.send_and_wait(FEEDBACK_RECORDED, value, key=b"r-poison", headers=list(encode_headers(envelope)))


def _stored(stack: RunningStack, event_id: str) -> int:
    url = stack.connection.clickhouse_url
    with get_client(dsn=url) as client:
        found = client.query(
            "SELECT count() FROM binnacle.feedback WHERE event_id = {id:String}", parameters={"id": event_id}
        )
    return int(found.first_row[0])


def test_what_was_refused_is_listed_shown_and_replayed(stack: RunningStack) -> None:
    """A corrupt record becomes a dead letter; replayed it is refused again, and again only as one record."""
    servers = stack.connection.kafka_bootstrap_servers
    asyncio.run(_send(servers, event_id="e2e-poison", value=b"\x0a\xff\xff\xff\x0f rubbish"))
    chosen = ("feedback", "--group", "analytics", "--where", "tenant=local", "--where", "key=r-poison")
    _until(lambda: stack.binnacle_json("dlq", "list", *chosen)[0]["total"] == 1)
    (listed,) = stack.binnacle_json("dlq", "list", *chosen)[0]["newest"]
    assert (listed["stage"], listed["replays"]) == ("apply", 0)
    (shown,) = stack.binnacle_json("dlq", "show", listed["dead_letter_topic"], listed["place"])
    assert shown["value"] == {"undecodable_hex": "0affffff0f2072756262697368"}
    assert ["ce_id", "e2e-poison"] in shown["headers"]
    for times in (1, 2):
        (replayed,) = stack.binnacle_json("dlq", "replay", *chosen, "--yes")
        assert (replayed["matching"], replayed["replayed"]) == (1, 1)
        _until(lambda times=times: stack.binnacle_json("dlq", "list", *chosen)[0]["total"] == 1 + times)
    newest = stack.binnacle_json("dlq", "list", *chosen)[0]["newest"][0]
    assert newest["replays"] == 2
    assert (newest["partition"], newest["offset"]) == (listed["partition"], listed["offset"])
    assert newest["first_failure_time"] == listed["first_failure_time"]
    assert _stored(stack, "e2e-poison") == 0
