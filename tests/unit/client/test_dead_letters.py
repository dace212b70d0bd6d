"""`binnacle dlq` counts, shows and chooses dead letters as asked, and replays each record once."""

import json
from collections.abc import AsyncIterator, Collection
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from typing import Any

import click
import pytest
from click.testing import CliRunner, Result

from binnacle.events.v1.feedback_recorded_pb2 import FeedbackRecorded
from binnacle_client.cli import dead_letters as commands
from binnacle_client.dead_letters import DeadLetterDesk, FoundLetter, open_desk
from servicekit.domain.envelope import Envelope
from servicekit.errors import BinnacleError, InvalidRequest, NotFound, NotReady
from servicekit.events.codec import encode_headers
from servicekit.events.dead_letters import Record, bury, read_burial, replay_headers
from servicekit.events.topics import FEEDBACK_RECORDED, TOPICS, dead_letter_topic, replay_topic
from servicekit.ports.event_bus import RejectedEvent

_NOW = datetime.now(UTC)
_GOOD = FeedbackRecorded(feedback_id="f1", rating=4).SerializeToString()


def _letter(
    place: int, *, of: int, group: str = "analytics", stage: str = "apply", tenant: str = "acme",
    value: bytes = _GOOD, replays: int = 0, age: timedelta = timedelta(0),
) -> FoundLetter:  # fmt: skip
    envelope = Envelope(
        id=f"e{of}", source="s", type=TOPICS[FEEDBACK_RECORDED].message, tenant=tenant, producer="p", sequence=of + 1
    )
    record = Record(FEEDBACK_RECORDED, 0, of, b"k", value, encode_headers(envelope), _NOW - timedelta(days=1))
    buried = bury(record, RejectedEvent(f"refused at {stage}", stage=stage), group=group, now=_NOW - age)
    headers = buried.headers
    for _ in range(replays):
        headers = replay_headers(headers)
    burial, original = read_burial(headers)
    return FoundLetter(buried.topic, 0, place, _NOW - age, record.key, value, headers, original, burial)


class FakeDesk(DeadLetterDesk):
    """A desk without a Kafka behind it."""

    def __init__(self, *letters: FoundLetter) -> None:
        names = {letter.topic: (0,) for letter in letters}
        super().__init__("", names)
        self.letters = letters
        self.replayed: list[FoundLetter] = []

    async def read(self, names: Collection[str]) -> AsyncIterator[FoundLetter]:
        """Those of the topics."""
        for letter in self.letters:
            if letter.topic in names:
                yield letter

    async def replay(self, letters: Collection[FoundLetter]) -> int:
        """Remember them."""
        self.replayed += letters
        return len(letters)


@pytest.fixture
def desk(monkeypatch: pytest.MonkeyPatch) -> FakeDesk:
    """Five letters of two groups; the third is the first record again, after a replay."""
    desk = FakeDesk(
        _letter(0, of=7, age=timedelta(hours=3)),
        _letter(1, of=8, stage="envelope", tenant="globex", value=b"\xff\xff", age=timedelta(hours=2)),
        _letter(2, of=7, replays=1, age=timedelta(minutes=1)),
        _letter(0, of=7, group="evaluator", stage="decode"),
    )

    @asynccontextmanager
    async def opened(_servers: str) -> AsyncIterator[FakeDesk]:
        yield desk

    monkeypatch.setenv("BINNACLE_API_KEY", "bk_test")
    monkeypatch.setattr(commands, "open_desk", opened)
    return desk


def _run(*arguments: str, answer: str = "") -> Result:
    return CliRunner().invoke(commands.dlq, arguments, input=answer)


def _json(*arguments: str) -> dict[str, Any]:
    result = _run(*arguments, "--json")
    assert result.exit_code == 0, result.output
    told: dict[str, Any] = json.loads(result.output)
    return told


def _error(*arguments: str) -> BinnacleError:
    error = _run(*arguments).exception
    assert isinstance(error, BinnacleError)
    return error


def test_list_counts_and_shows_the_newest(desk: FakeDesk) -> None:
    """Counts by topic, group, stage and error; the newest first."""
    told = _json("list", "--limit", "2")
    assert told["total"] == 4
    assert [(one["group"], one["stage"], one["count"]) for one in told["counts"]] == [
        ("analytics", "apply", 2),
        ("analytics", "envelope", 1),
        ("evaluator", "decode", 1),
    ]
    assert [(one["group"], one["place"], one["replays"]) for one in told["newest"]] == [
        ("evaluator", "0:0", 0),
        ("analytics", "0:2", 1),
    ]


@pytest.mark.parametrize(
    ("arguments", "total"),
    [
        (["feedback"], 4),
        ([dead_letter_topic(FEEDBACK_RECORDED, "evaluator")], 1),
        (["--group", "analytics"], 3),
        (["--where", "stage=apply"], 2),
        (["--where", "stage=apply", "--where", "replays=1"], 1),
        (["--where", "error-class=RejectedEvent", "--where", "tenant=globex"], 1),
        (["--where", "error=at env"], 1),
        (["--where", "place=0:0", "--group", "analytics"], 1),
        (["--since", "150m"], 3),
        (["--since", (_NOW - timedelta(minutes=30)).isoformat()], 2),
    ],
)
def test_list_shows_what_is_asked_for(desk: FakeDesk, arguments: list[str], total: int) -> None:
    """By topic, group, any field, part of the error, and age."""
    assert _json("list", *arguments)["total"] == total


@pytest.mark.parametrize("arguments", [["--where", "colour=red"], ["--where", "stage"], ["--since", "soon"]])
def test_a_filter_that_is_none_is_told(desk: FakeDesk, arguments: list[str]) -> None:
    """A misspelt name must not select everything."""
    result = _run("replay", *arguments, "--yes")
    assert result.exit_code == click.UsageError.exit_code
    assert not desk.replayed


def test_list_for_people_is_a_table(desk: FakeDesk) -> None:
    """Counts, and where each of the newest lies."""
    shown = _run("list").output
    assert "the newest 4 of 4" in shown
    assert "refused at envelope" in shown


def test_show_decodes_or_gives_the_bytes(desk: FakeDesk) -> None:
    """A value that parses is shown as its message, one that does not in hexadecimal; headers as they were."""
    told = _json("show", "feedback", "0:2")
    assert (told["value"], told["error"], told["offset"]) == ({"feedback_id": "f1", "rating": 4}, "refused at apply", 7)
    assert ["ce_id", "e7"] in told["headers"]
    assert _json("show", "feedback", "0:1")["value"] == {"undecodable_hex": "ffff"}
    assert "refused at apply" in _run("show", "feedback", "0:2").output


def test_show_says_what_it_cannot_find(desk: FakeDesk) -> None:
    """A place without a dead letter, one of two groups, and what is no place."""
    assert isinstance(_error("show", "feedback", "0:9"), NotFound)
    assert "analytics, evaluator" in _error("show", "feedback", "0:0").message
    assert isinstance(_error("show", "feedback", "nine"), InvalidRequest)
    assert _json("show", "feedback", "0:0", "--group", "evaluator")["stage"] == "decode"


def test_replay_sends_each_record_once_to_each_group(desk: FakeDesk) -> None:
    """A record that was buried twice goes back once, in its newest form."""
    told = _json("replay", "--yes")
    assert (told["matching"], told["replayed"]) == (3, 3)
    assert [(one.burial.group, one.burial.origin.offset, one.offset) for one in desk.replayed] == [
        ("analytics", 7, 2),
        ("evaluator", 7, 0),
        ("analytics", 8, 1),
    ]


def test_replay_asks_and_a_dry_run_sends_nothing(desk: FakeDesk) -> None:
    """Without --yes a person decides."""
    assert _json("replay", "--dry-run")["replayed"] == 0
    assert _run("replay", answer="n\n").exit_code == 1
    assert not desk.replayed
    assert _run("replay", "--where", "stage=decode", answer="y\n").exit_code == 0
    assert [letter.burial.group for letter in desk.replayed] == ["evaluator"]
    assert "cannot ask" in _run("replay", "--json").output


async def test_a_group_that_never_ran_has_no_replay_topic() -> None:
    """Nobody would read what is put there."""
    letter = _letter(0, of=1)
    with pytest.raises(NotReady, match=replay_topic(FEEDBACK_RECORDED, "analytics")):
        await DeadLetterDesk("127.0.0.1:1", {letter.topic: (0,)}).replay([letter])


async def test_no_address_is_told() -> None:
    """As every command that reads Kafka."""
    with pytest.raises(NotReady, match="KAFKA_BOOTSTRAP_SERVERS"):
        async with open_desk(""):
            pass
