"""Which answers a document went into, asked of a filled ClickHouse in which every event is stored twice."""

import asyncio
import re
from collections.abc import AsyncIterator, Iterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest

from binnacle.events.v1.interaction_completed_pb2 import InteractionCompleted
from servicekit.adapters.clickhouse.analytics_store import ClickHouseAnalyticsStore, open_analytics_store
from servicekit.errors import InvalidRequest
from servicekit.events.topics import INTERACTION_COMPLETED
from services.analytics.affected import AffectedQuery, AffectedReader, make_long_window
from services.analytics.config import Settings
from services.analytics.migrations import migrate, read_migrations
from tests.analytics_examples import TENANT, Example, insert
from tests.clickhouse_process import running_front

pytestmark = pytest.mark.slow

_NOW = datetime(2026, 5, 6, 7, 8, 9, 123456, tzinfo=UTC)
_CITING, _FILLING = 7, 40_000


def _answer(number: int) -> InteractionCompleted:
    """The later, the greater the number; one in three with the second revision, the last two without citing it."""
    revision = 2 if number % 3 == 0 else 1
    message = InteractionCompleted(request_id=f"r-{number}", outcome=1, route="support", end_user_id=f"u-{number}")
    message.complete_time.FromDatetime(_NOW - timedelta(minutes=_CITING + 2 - number))
    message.chunks.add(chunk_id="c", document_id="tide", revision=revision, content_hash=f"h{revision}", used=True)
    message.chunks.add(chunk_id="n", document_id="never-used", revision=1, content_hash="n")
    if number < _CITING:
        message.citations.add(marker="[1]", document_id="tide", revision=revision, content_hash=f"h{revision}")
        message.citations.add(marker="[2]", document_id="other", revision=1, content_hash="o")
    return message


def _unrelated(number: int) -> InteractionCompleted:
    message = InteractionCompleted(request_id=f"u-{number}", outcome=1, route="support")
    message.complete_time.FromDatetime(_NOW - timedelta(days=1, seconds=number))
    message.chunks.add(document_id="other", revision=1, used=True)
    message.citations.add(marker="[1]", document_id="other", revision=1)
    return message


async def _fill(url: str) -> None:
    async with open_analytics_store(url) as store:
        await migrate(store, read_migrations(Settings().migrations_dir))
        events = [Example(INTERACTION_COMPLETED, f"e-{n}", _answer(n)) for n in range(_CITING + 2)]
        for _copy in range(2):
            await insert(store, events, event_time=_NOW)
        many = [Example(INTERACTION_COMPLETED, f"f-{n}", _unrelated(n)) for n in range(_FILLING)]
        await insert(store, many, event_time=_NOW)


@pytest.fixture(scope="module")
def store_url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """A filled store."""
    with running_front(tmp_path_factory.mktemp("front")) as front:
        asyncio.run(_fill(front.store_url))
        yield front.store_url


@pytest.fixture
async def store(store_url: str) -> AsyncIterator[ClickHouseAnalyticsStore]:
    """The filled store, opened."""
    async with open_analytics_store(store_url) as opened:
        yield opened


def _query(**changes: object) -> AffectedQuery:
    whole = AffectedQuery("tide", 0, include_uncited=False, window=make_long_window(None, None, now=_NOW))
    return replace(whole, **changes)  # type: ignore[arg-type]  # named at each call


async def test_each_citing_answer_is_named_once(store: ClickHouseAnalyticsStore) -> None:
    """Newest first, with the revisions and hashes it used; copies of an event count once."""
    page = await AffectedReader(store).list_page(_query(), size=100, tenant=TENANT)
    assert [one.request_id for one in page.answers] == [f"r-{n}" for n in reversed(range(_CITING))]
    assert (page.total, page.following) == (_CITING, None)
    newest = page.answers[0]
    assert (newest.revisions, newest.content_hashes, newest.cited) == ([2], ["h2"], True)
    assert (newest.route, newest.end_user_id, newest.answer_time) == ("support", "u-6", _NOW - timedelta(minutes=3))


async def test_used_without_being_cited_is_named_where_asked_for(store: ClickHouseAnalyticsStore) -> None:
    """What was found but not packed into the prompt never counts."""
    reader = AffectedReader(store)
    page = await reader.list_page(_query(include_uncited=True), size=100, tenant=TENANT)
    assert (page.total, [one.cited for one in page.answers]) == (_CITING + 2, [False, False] + [True] * _CITING)
    unused = await reader.list_page(_query(document_id="never-used", include_uncited=True), size=9, tenant=TENANT)
    assert (unused.answers, unused.total) == ([], 0)


async def test_revision_time_and_tenant_narrow_it(store: ClickHouseAnalyticsStore) -> None:
    """Only answers with that revision, of that time, of that tenant."""
    reader = AffectedReader(store)
    second = await reader.list_page(_query(revision=2), size=100, tenant=TENANT)
    assert [one.request_id for one in second.answers] == ["r-6", "r-3", "r-0"]
    late = make_long_window(_NOW - timedelta(minutes=4), _NOW - timedelta(minutes=3), now=_NOW)
    assert [one.request_id for one in (await reader.list_page(_query(window=late), size=9, tenant=TENANT)).answers] == [
        "r-5"
    ]
    assert (await reader.list_page(_query(), size=9, tenant="other")).total == 0


async def test_pages_join_into_the_whole(store: ClickHouseAnalyticsStore) -> None:
    """Each page goes on where the last ended and says the same total; the token fits no other question."""
    reader = AffectedReader(store)
    found: list[str] = []
    query: AffectedQuery | None = _query()
    while query is not None:
        page = await reader.list_page(query, size=3, tenant=TENANT)
        found += [one.request_id for one in page.answers]
        assert page.total == _CITING
        query = _query().resumed(page.following.token()) if page.following else None
    assert found == [f"r-{n}" for n in reversed(range(_CITING))]
    token = replace(_query(), after_time=_NOW, after_id="x").token()
    for wrong, other in ((token, _query(revision=2)), ("no token", _query()), (token[:-4], _query())):
        with pytest.raises(InvalidRequest, match="page_token"):
            other.resumed(wrong)


async def test_granules_without_the_document_are_not_read(store: ClickHouseAnalyticsStore) -> None:
    """The skip indexes answer the question whether a granule can hold the document, for cited and for used."""
    for condition, index in (
        ("has(citations.document_id, 'tide')", "cited_documents_index"),
        ("has(chunks.document_id, 'tide')", "found_documents_index"),
        ("has(citations.document_id, 'tide') OR has(chunks.document_id, 'tide')", "cited_documents_index"),
    ):
        rows = await store.query(
            f"EXPLAIN indexes = 1 SELECT count() FROM interactions_raw FINAL WHERE tenant = 'acme' AND ({condition})"
        )
        text = "\n".join(str(next(iter(row.values()))) for row in rows)
        granules = [tuple(map(int, one)) for one in re.findall(r"Granules: (\d+)/(\d+)", text)]
        held = max(of for _, of in granules)
        assert f"Name: {index}" in text
        assert min(kept for kept, of in granules if of == held) < held / 2, text


def test_a_window_that_ends_before_it_starts_is_refused() -> None:
    """By name, with both times."""
    with pytest.raises(InvalidRequest, match="start_time must be before end_time"):
        make_long_window(_NOW, _NOW, now=_NOW)
    with pytest.raises(InvalidRequest, match="revision must be 1 or more"):
        _query(revision=-1)
