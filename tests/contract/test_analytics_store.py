"""The ClickHouse adapter keeps the analytics store's contract against the embedded front."""

from collections.abc import AsyncIterator, Iterator

import pytest

from servicekit.adapters.clickhouse.analytics_store import Target
from servicekit.adapters.registry import open_analytics_store
from servicekit.errors import BackendTimeout, BackendUnavailable, InvalidRequest
from servicekit.ports.analytics_store import AnalyticsStore
from servicekit.testing.conformance.analytics_store import AnalyticsStoreConformance
from tests.clickhouse_process import FrontProcess, running_front


@pytest.fixture(scope="module")
def front(tmp_path_factory: pytest.TempPathFactory) -> Iterator[FrontProcess]:
    """One front for the module."""
    with running_front(tmp_path_factory.mktemp("front")) as front:
        yield front


@pytest.fixture
async def store(front: FrontProcess) -> AsyncIterator[AnalyticsStore]:
    """The store under test."""
    async with open_analytics_store(front.store_url) as store:
        yield store


class TestClickHouse(AnalyticsStoreConformance):
    """clickhouse-connect over HTTP."""


async def test_a_store_that_is_away_is_unavailable() -> None:
    """Nothing listens: the error says so, and a later call tries again."""
    async with open_analytics_store("clickhouse://127.0.0.1:1/binnacle") as store:
        for _ in range(2):
            with pytest.raises(BackendUnavailable) as caught:
                await store.ping()
            assert caught.value.reason == "CONNECT"


async def test_a_store_that_is_slow_times_out(front: FrontProcess) -> None:
    """A query longer than the store's time is given up, and the next one works."""
    async with open_analytics_store(front.store_url, timeout_s=0.5) as store:
        await store.ping()
        with pytest.raises(BackendTimeout):
            await store.query("SELECT sleep(3)")
        assert await store.query("SELECT 1 AS one") == [{"one": 1}]


@pytest.mark.parametrize(
    "url", ["clickhouse://", "clickhouse://host", "clickhouse://h/a/b", "clickhouse://h:0x1/a", "clickhouse:///a"]
)
def test_a_faulty_url_is_refused_by_name(url: str) -> None:
    """A URL without host, port number or database is refused before anything is opened."""
    with pytest.raises(InvalidRequest) as caught:
        Target.from_url(url)
    assert caught.value.field == "analytics_store_url"


def test_a_faulty_url_does_not_tell_its_password() -> None:
    """The password stays out of the error and of the target's picture."""
    with pytest.raises(InvalidRequest) as caught:
        Target.from_url("clickhouse://user:secret@host")
    assert "secret" not in caught.value.message
    assert "secret" not in repr(Target.from_url("clickhouse://user:secret@host/db"))
