"""`binnacle complete` says in one line whether a window is whole, and names what is not."""

import json
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from datetime import UTC, datetime

import click
import pytest
from click.testing import CliRunner, Result

from binnacle.analytics.v1 import analytics_service_pb2 as pb
from binnacle_client.answers import Completeness
from binnacle_client.cli import completing
from binnacle_client.cli.moments import read_moment
from binnacle_client.connection import Connection
from binnacle_client.convert import completeness_from_proto

_CLOSED, _OPEN, _UNCLEAN = pb.PRODUCER_STATE_CLOSED, pb.PRODUCER_STATE_OPEN, pb.PRODUCER_STATE_CLOSED_UNCLEAN
_LATEST = datetime(2026, 5, 2, 14, 30, tzinfo=UTC)


def _entry(**fields: object) -> pb.LedgerEntry:
    entry = pb.LedgerEntry(
        topic="binnacle.feedback.recorded.v1", partition=3, source="gateway", producer="gateway-7f", accepted_from=10,
        accepted=20, stored=10, state=_CLOSED,
    )  # fmt: skip
    entry.MergeFrom(pb.LedgerEntry(**fields))
    return entry


def _response(**fields: object) -> pb.GetCompletenessResponse:
    return pb.GetCompletenessResponse(entries=[_entry(**fields)])


class _Answering:
    def __init__(self, ledger: Completeness) -> None:
        self._ledger = ledger
        self.asked: list[tuple[str, datetime, datetime]] = []

    async def completeness(self, *, topic: str, start: datetime, end: datetime) -> Completeness:
        self.asked.append((topic, start, end))
        return self._ledger


def _run(
    monkeypatch: pytest.MonkeyPatch, response: pb.GetCompletenessResponse, arguments: Sequence[str] = ()
) -> tuple[Result, _Answering]:
    client = _Answering(completeness_from_proto(response))

    @asynccontextmanager
    async def opened(_connection: Connection) -> AsyncIterator[_Answering]:
        yield client

    monkeypatch.setenv("BINNACLE_API_KEY", "bk_test")
    monkeypatch.setattr(completing, "open_client", opened)
    return CliRunner().invoke(completing.complete, arguments), client


def test_a_whole_window_is_one_line_and_exit_0(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing more is said where nothing is wrong."""
    response = _response()
    response.complete = True
    result, _client = _run(monkeypatch, response)
    assert result.exit_code == 0
    assert len(result.output.splitlines()) == 1
    assert result.output.startswith("whole: ")
    assert "10 accepted, 10 stored once" in result.output


@pytest.mark.parametrize(
    ("fields", "sums", "verdict", "status"),
    [
        ({"state": _OPEN}, {"open": 1}, "whole so far", 0),
        ({"pending": 1, "pending_ranges": [pb.SequenceRange(first=20, last=20)]}, {"pending": 1}, "whole so far", 0),
        ({"missing": 2, "missing_ranges": [pb.SequenceRange(first=12, last=13)]}, {"missing": 2}, "not whole", 6),
        (
            {"dead_lettered": 1, "dead_lettered_ranges": [pb.SequenceRange(first=9, last=9)]},
            {"dead_lettered": 1},
            "not whole",
            6,
        ),
        ({"state": _UNCLEAN, "unknown_tail": True}, {"unknown_tails": 1}, "not whole", 6),
    ],
)
def test_what_is_wrong_decides_the_first_word_and_the_exit_status(
    fields: dict[str, object], sums: dict[str, int], verdict: str, status: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A loss is told by the exit status; what may still come is not."""
    response = _response(**fields)
    response.MergeFrom(pb.GetCompletenessResponse(**sums))
    result, _client = _run(monkeypatch, response)
    assert result.output.startswith(f"{verdict}: ")
    assert result.exit_code == status


def test_producer_topic_partition_and_sequences_are_named(monkeypatch: pytest.MonkeyPatch) -> None:
    """A person reads them in a table, a program in JSON."""
    response = _response(
        missing=3,
        missing_ranges=[pb.SequenceRange(first=12, last=13), pb.SequenceRange(first=15, last=15)],
        duplicates=1,
        duplicate_ranges=[pb.SequenceRange(first=18, last=18)],
    )
    response.missing = 3
    result, _client = _run(monkeypatch, response)
    rows = [line.split() for line in result.output.splitlines()[3:]]
    place = ["binnacle.feedback.recorded.v1", "3"]
    assert rows == [
        ["missing", "3", *place, "12-13,", "15", "gateway-7f"],
        ["duplicate", "1", *place, "18", "gateway-7f"],
    ]
    told = json.loads(_run(monkeypatch, response, ["--json"])[0].output)
    assert told["verdict"] == "not whole"
    assert [(one["what"], one["producer"], one["partition"], one["ranges"]) for one in told["findings"]] == [
        ("missing", "gateway-7f", 3, [[12, 13], [15, 15]]),
        ("duplicate", "gateway-7f", 3, [[18, 18]]),
    ]


def test_a_window_is_asked_for_by_its_times(monkeypatch: pytest.MonkeyPatch) -> None:
    """From and to reach the service; without them it is the last hours."""
    arguments = ["--from", "2026-05-01T14:00", "--to", "2026-05-01T15:00+00:00", "--topic", "t"]
    _result, client = _run(monkeypatch, _response(), arguments)
    assert client.asked == [("t", datetime(2026, 5, 1, 14, tzinfo=UTC), datetime(2026, 5, 1, 15, tzinfo=UTC))]
    _result, client = _run(monkeypatch, _response(), ["--hours", "2"])
    ((_topic, start, end),) = client.asked
    assert (end - start).total_seconds() == 7200


@pytest.mark.parametrize(
    ("text", "moment"),
    [
        ("14:00", datetime(2026, 5, 2, 14, tzinfo=UTC)),
        ("14:30", _LATEST),
        ("15:00", datetime(2026, 5, 1, 15, tzinfo=UTC)),
        ("9:05:07", datetime(2026, 5, 2, 9, 5, 7, tzinfo=UTC)),
        ("2026-04-01", datetime(2026, 4, 1, tzinfo=UTC)),
        ("2026-04-01T12:00+02:00", datetime(2026, 4, 1, 10, tzinfo=UTC)),
    ],
)
def test_a_time_of_day_is_the_last_one_that_has_been(text: str, moment: datetime) -> None:
    """Nobody asks about an hour that is still to come."""
    assert read_moment(text, latest=_LATEST, option="--to") == moment


@pytest.mark.parametrize("text", ["", "25:00", "14:61", "yesterday", "14"])
def test_what_is_no_time_is_refused_by_name(text: str) -> None:
    """The option and the value are in the message."""
    with pytest.raises(click.BadParameter, match="must be a time such as 14:00") as caught:
        read_moment(text, latest=_LATEST, option="--from")
    assert caught.value.param_hint == "--from"
