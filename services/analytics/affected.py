"""Reads which answers a document went into: those that cite it, or had it in their prompt. Called by `server.py`."""

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from typing import Any

from servicekit.errors import InvalidRequest
from servicekit.ports.analytics_store import AnalyticsStore
from services.analytics.window import Window, make_token, read_moment, refused_tokens, token_parts

# Before the first record that there can be.
_BEGINNING = datetime(1970, 1, 1, tzinfo=UTC)
_CLOCKS_APART = timedelta(days=1)
_TOKEN_PARTS = 7


@dataclass(frozen=True, slots=True)
class AffectedAnswer:
    """An answer that the document went into, and what of it."""

    request_id: str
    answer_time: datetime
    route: str
    end_user_id: str
    conversation_id: str
    revisions: Sequence[int]
    content_hashes: Sequence[str]
    cited: bool


@dataclass(frozen=True, slots=True)
class AffectedQuery:
    """Which document, of it which revision (0: any), and the row after which the list goes on, newest first."""

    document_id: str
    revision: int
    include_uncited: bool
    window: Window
    after_time: datetime | None = None
    after_id: str = ""

    def __post_init__(self) -> None:
        """Refuse a revision that no document has."""
        if self.revision < 0:
            raise InvalidRequest(f"revision must be 1 or more, or 0 for all, got {self.revision}", field="revision")

    def token(self) -> str:
        """This page as text that a caller hands back."""
        assert self.after_time is not None
        moments = (self.window.start, self.window.end, self.after_time)
        return make_token([*self._filters(), *(moment.isoformat() for moment in moments), self.after_id])

    def resumed(self, token: str) -> "AffectedQuery":
        """The page that a token stands for, over the times of the first page.

        Raises:
            InvalidRequest: it is none of ours, or belongs to a list with other filters.
        """
        with refused_tokens(token):
            *filters, start, end, after_time, after_id = token_parts(token, count=_TOKEN_PARTS)
            window = Window(start=read_moment(start), end=read_moment(end))
            after = read_moment(after_time)
        if filters != self._filters():
            raise InvalidRequest(
                "page_token belongs to a list with other filters: repeat the request's document_id, revision and "
                "include_uncited",
                field="page_token",
            )
        return replace(self, window=window, after_time=after, after_id=after_id)

    def _filters(self) -> list[str]:
        return [self.document_id, str(self.revision), str(self.include_uncited)]


@dataclass(frozen=True, slots=True)
class AffectedPage:
    """Answers, newest first; how many there are in all; the page behind them where there are more."""

    answers: Sequence[AffectedAnswer]
    total: int
    following: AffectedQuery | None


def make_long_window(start: datetime | None, end: datetime | None, *, now: datetime) -> Window:
    """The window asked for; all that is kept where nothing is said.

    Raises:
        InvalidRequest: it ends before it starts.
    """
    window = Window(start=start or _BEGINNING, end=end or now)
    if window.start >= window.end:
        raise InvalidRequest(
            f"start_time must be before end_time, got {window.start.isoformat()} and {window.end.isoformat()}",
            field="start_time",
        )
    # The store knows no times of other centuries, and there are no answers then.
    return Window(start=max(window.start, _BEGINNING), end=min(window.end, now + _CLOCKS_APART))


# The first two conditions are what the skip indexes of 0008 answer; the others look closer at what is left.
_OF_DOCUMENT = (
    "one -> one.document_id = {document:String} AND ({revision:Int64} = 0 OR one.revision = {revision:Int64})"
)
_CITES = f"arrayFilter({_OF_DOCUMENT}, citations)"
_USES = f"arrayFilter({_OF_DOCUMENT} AND one.used, chunks)"
_CITED = f"has(citations.document_id, {{document:String}}) AND notEmpty({_CITES})"
_USED = f"has(chunks.document_id, {{document:String}}) AND notEmpty({_USES})"
_COLUMNS = (
    "request_id, complete_time, route, end_user_id, conversation_id, event_id, "
    f"{_CITES} AS cites, {_USES} AS uses, notEmpty(cites) AS cited, "
    "arraySort(arrayDistinct(arrayConcat(cites.revision, uses.revision))) AS revisions, "
    "arrayDistinct(arrayConcat(cites.content_hash, uses.content_hash)) AS content_hashes"
)


class AffectedReader:
    """Reads collapsed rows only: an answer that is stored twice is named and counted once."""

    def __init__(self, store: AnalyticsStore) -> None:
        self._store = store

    async def list_page(self, query: AffectedQuery, *, size: int, tenant: str) -> AffectedPage:
        """At most `size` answers, newest first, and how many there are on all pages."""
        table = "interactions_raw FINAL"
        condition = (
            "tenant = {tenant:String} AND complete_time >= {start:DateTime64(6, 'UTC')} "
            f"AND complete_time < {{end:DateTime64(6, 'UTC')}} AND {_which(query)}"
        )
        parameters: dict[str, Any] = {
            "tenant": tenant,
            "start": query.window.start,
            "end": query.window.end,
            "document": query.document_id,
            "revision": query.revision,
            "limit": size + 1,
        }
        after = ""
        if query.after_time is not None:
            after = "AND (complete_time, event_id) < ({after_time:DateTime64(6, 'UTC')}, {after_id:String}) "
            parameters |= {"after_time": query.after_time, "after_id": query.after_id}
        rows, totals = await asyncio.gather(
            self._store.query(
                f"SELECT {_COLUMNS} FROM {table} WHERE {condition} {after}"  # noqa: S608  # names of our own
                "ORDER BY complete_time DESC, event_id DESC LIMIT {limit:UInt32}",
                parameters,
            ),
            self._store.query(f"SELECT count() AS total FROM {table} WHERE {condition}", parameters),  # noqa: S608  # as above
        )
        answers = [
            AffectedAnswer(
                request_id=row["request_id"],
                answer_time=row["complete_time"],
                route=row["route"],
                end_user_id=row["end_user_id"],
                conversation_id=row["conversation_id"],
                revisions=row["revisions"],
                content_hashes=row["content_hashes"],
                cited=bool(row["cited"]),
            )
            for row in rows[:size]
        ]
        following = None
        if len(rows) > size:
            last = rows[size - 1]
            following = replace(query, after_time=last["complete_time"], after_id=str(last["event_id"]))
        return AffectedPage(answers, totals[0]["total"], following)


def _which(query: AffectedQuery) -> str:
    return f"(({_CITED}) OR ({_USED}))" if query.include_uncited else f"({_CITED})"
