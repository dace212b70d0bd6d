"""Migrations go forward once, in order, and a changed history is refused."""

from pathlib import Path

import pytest

from servicekit.errors import NotReady
from services.analytics.migrations import migrate, read_migrations
from tests.unit.analytics.analytics_fakes import RecordingStore


def _write(folder: Path, **files: str) -> Path:
    for name, text in files.items():
        (folder / f"{name[1:]}.sql").write_text(text)
    return folder


async def test_missing_migrations_are_applied_in_order(tmp_path: Path) -> None:
    """Statements run file by file, and each file is recorded behind its last statement."""
    folder = _write(tmp_path, _0001_one="CREATE a;\n-- note; still a comment\nCREATE b;\n", _0002_two="CREATE c;")
    store = RecordingStore()
    assert await migrate(store, read_migrations(folder)) == ("one", "two")
    done = [text.split("(")[0].strip() for text in store.statements if text.startswith(("CREATE", "-- ", "INSERT"))]
    assert [text.splitlines()[-1] for text in done] == [
        "CREATE a",
        "CREATE b",
        "INSERT INTO schema_migrations",
        "CREATE c",
        "INSERT INTO schema_migrations",
    ]


async def test_an_applied_migration_is_not_run_again(tmp_path: Path) -> None:
    """A second start changes nothing."""
    migrations = read_migrations(_write(tmp_path, _0001_one="CREATE a;"))
    store = RecordingStore(answers={"schema_migrations FINAL": [{"version": 1, "checksum": migrations[0].checksum}]})
    assert await migrate(store, migrations) == ()
    assert "CREATE a" not in store.statements


async def test_a_changed_migration_is_refused(tmp_path: Path) -> None:
    """A file that differs from what was applied stops the start and says what to do."""
    migrations = read_migrations(_write(tmp_path, _0001_one="CREATE a;"))
    store = RecordingStore(answers={"schema_migrations FINAL": [{"version": 1, "checksum": "0" * 64}]})
    with pytest.raises(NotReady, match="0001_one was changed") as caught:
        await migrate(store, migrations)
    assert caught.value.reason == "MIGRATION_CHANGED"


async def test_a_newer_schema_is_let_be(tmp_path: Path) -> None:
    """An older binary runs beside a store that is ahead of it."""
    migrations = read_migrations(_write(tmp_path, _0001_one="CREATE a;"))
    applied = [{"version": 1, "checksum": migrations[0].checksum}, {"version": 2, "checksum": "1" * 64}]
    assert await migrate(RecordingStore(answers={"schema_migrations FINAL": applied}), migrations) == ()


async def test_system_logs_are_bounded(tmp_path: Path) -> None:
    """A server's own logs get a time to live where they have none."""
    store = RecordingStore(answers={"system.tables": [{"name": "query_log"}]})
    await migrate(store, read_migrations(_write(tmp_path, _0001_one="CREATE a;")))
    assert "ALTER TABLE system.`query_log` MODIFY TTL event_date + INTERVAL 14 DAY" in store.statements


@pytest.mark.parametrize("names", [(), ("0002_b",), ("0001_a", "0003_c"), ("0001_a", "0001_b"), ("1_a",), ("0001_A",)])
def test_misnumbered_files_are_refused(tmp_path: Path, names: tuple[str, ...]) -> None:
    """A gap or a number given twice is noticed before anything runs."""
    for name in names:
        (tmp_path / f"{name}.sql").write_text("CREATE a;")
    with pytest.raises(NotReady) as caught:
        read_migrations(tmp_path)
    assert caught.value.reason == "MIGRATIONS_MISNUMBERED"
