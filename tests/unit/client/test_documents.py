"""`binnacle documents`, `retract`, `affected` and `delete` say what is there, what was done and whom it concerns."""

import json
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from datetime import UTC, datetime

import click
import pytest
from click.testing import CliRunner, Result

from binnacle_client.answers import AffectedAnswer, AffectedAnswers, DocumentState
from binnacle_client.cli import documents
from binnacle_client.connection import Connection
from servicekit.errors import BackendUnavailable

_WHEN = datetime(2026, 5, 2, 14, 30, tzinfo=UTC)
_ANSWER = AffectedAnswer("r-1", _WHEN, "support", "u-1", "c-1", (1, 2), ("h1", "h2"), cited=True)


class _Answering:
    """A client with one document and two answers, and everything that was asked of it."""

    def __init__(self, *, analytics: bool = True) -> None:
        self._analytics = analytics
        self.asked: list[object] = []

    async def documents(self, *, include_retracted: bool) -> AsyncIterator[DocumentState]:
        self.asked.append(include_retracted)
        yield DocumentState("tide.md", 2, 3, "Tides", "file:///tide.md", "text/markdown", "h", _WHEN, _WHEN)

    async def retract(self, document_id: str, *, reason: str) -> int:
        self.asked.append((document_id, reason))
        return 2

    async def delete(self, document_id: str) -> None:
        self.asked.append(document_id)

    async def affected_answers(self, document_id: str, **options: object) -> AffectedAnswers:
        self.asked.append((document_id, options))
        if not self._analytics:
            raise BackendUnavailable("analytics is away", reason="CONNECT")
        return AffectedAnswers(2, (_ANSWER,))


def _run(
    monkeypatch: pytest.MonkeyPatch, command: click.Command, arguments: Sequence[str], *, analytics: bool = True
) -> tuple[Result, _Answering]:
    client = _Answering(analytics=analytics)

    @asynccontextmanager
    async def opened(_connection: Connection) -> AsyncIterator[_Answering]:
        yield client

    monkeypatch.setenv("BINNACLE_API_KEY", "bk_test")
    monkeypatch.setattr(documents, "open_client", opened)
    return CliRunner().invoke(command, arguments), client


def test_documents_are_a_table_or_one_object_each(monkeypatch: pytest.MonkeyPatch) -> None:
    """The time of retraction shows where retracted documents were asked for."""
    result, client = _run(monkeypatch, documents.documents, ["--json"])
    (line,) = map(json.loads, result.stdout.splitlines())
    assert (line["document_id"], line["revision"], client.asked) == ("tide.md", 2, [False])
    _, client = _run(monkeypatch, documents.documents, ["--retracted"])
    assert client.asked == [True]


def test_retract_tells_which_answers_cited_it(monkeypatch: pytest.MonkeyPatch) -> None:
    """The reason goes along; the count and the first few answers come back."""
    result, client = _run(monkeypatch, documents.retract, ["tide.md", "--reason", "old tables", "--json"])
    told = json.loads(result.stdout)
    assert client.asked[0] == ("tide.md", "old tables")
    assert (told["revision"], told["cited_by"], told["answers"][0]["request_id"]) == (2, 2, "r-1")


def test_a_retraction_stands_though_analytics_is_away(monkeypatch: pytest.MonkeyPatch) -> None:
    """The document is hidden: exit 0, with a note what to ask later."""
    result, _ = _run(monkeypatch, documents.retract, ["tide.md", "--json"], analytics=False)
    assert (result.exit_code, json.loads(result.stdout)["cited_by"]) == (0, None)


def test_affected_passes_its_filters_on_and_ends_with_the_total(monkeypatch: pytest.MonkeyPatch) -> None:
    """One object an answer, then how many there are in all."""
    arguments = ["tide.md", "--revision", "1", "--since", "2026-05-01T14:00", "--uncited", "--limit", "5", "--json"]
    result, client = _run(monkeypatch, documents.affected, arguments)
    first, last = map(json.loads, result.stdout.splitlines())
    assert (first["request_id"], first["revisions"], last["total"]) == ("r-1", [1, 2], 2)
    start = datetime(2026, 5, 1, 14, tzinfo=UTC)
    assert client.asked == [
        ("tide.md", {"revision": 1, "start": start, "include_uncited": True, "limit": 5}),
    ]


def test_delete_asks_before_it_erases(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without --yes and without an answer nothing is erased."""
    result, client = _run(monkeypatch, documents.delete, ["tide.md"])
    assert (result.exit_code, client.asked) == (1, [])
    result, client = _run(monkeypatch, documents.delete, ["tide.md", "--yes"])
    assert (result.exit_code, client.asked) == (0, ["tide.md"])
