"""Brings the store's schema forward by numbered SQL files, and refuses a history that does not fit.

Run by `services.analytics` at start, before the sink; the files are `infra/clickhouse/migrations/NNNN_name.sql`.

A file holds statements that end with `;` at a line's end. Every statement can be repeated (`IF NOT EXISTS`,
`OR REPLACE`), because ClickHouse has no transactions: a file whose run was cut short, or that two processes run
at the same time, is simply run again.
"""

import hashlib
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import structlog

from servicekit.errors import NotReady
from servicekit.ports.analytics_store import AnalyticsStore

log = structlog.get_logger()

_FILE_NAME = re.compile(r"(?P<version>\d{4})_(?P<name>[a-z0-9_]+)\.sql")
_STATEMENT_END = re.compile(r";[ \t]*(?:\n|\Z)")
_SYSTEM_LOG_DAYS = 14
_CREATE_HISTORY = """
CREATE TABLE IF NOT EXISTS schema_migrations
(
    version UInt32,
    name String,
    checksum FixedString(64),
    apply_time DateTime64(3, 'UTC') DEFAULT now64(3, 'UTC')
)
ENGINE = ReplacingMergeTree
ORDER BY version
"""


@dataclass(frozen=True, slots=True)
class Migration:
    """One file: its number, its name, the statements in it and the SHA-256 of its bytes."""

    version: int
    name: str
    checksum: str
    statements: tuple[str, ...]


def read_migrations(directory: Path) -> tuple[Migration, ...]:
    """The files of a directory in order.

    Raises:
        NotReady: there are none, a number is missing or given twice, or a name does not fit.
    """
    files = sorted(directory.glob("*.sql"))
    migrations = tuple(_read_migration(path) for path in files)
    versions = [migration.version for migration in migrations]
    if not versions or versions != list(range(1, len(versions) + 1)):
        raise NotReady(
            f"migrations in {directory} must be numbered 0001, 0002, … without gaps, got {versions}",
            reason="MIGRATIONS_MISNUMBERED",
        )
    return migrations


async def migrate(store: AnalyticsStore, migrations: Sequence[Migration]) -> tuple[str, ...]:
    """Apply what is missing; the names of what was applied.

    Raises:
        NotReady: an applied file was changed since.
        BackendUnavailable, BackendTimeout
    """
    await store.execute(_CREATE_HISTORY)
    applied = await _applied(store)
    _refuse_changed(migrations, applied)
    unknown = sorted(set(applied) - {migration.version for migration in migrations})
    if unknown:
        log.warning("migrations.newer_schema", versions=unknown)
    missing = [migration for migration in migrations if migration.version not in applied]
    for migration in missing:
        for statement in migration.statements:
            await store.execute(statement)
        # Formatted by hand: the values are a number, a file name and a hexadecimal digest, all checked.
        await store.execute(
            "INSERT INTO schema_migrations (version, name, checksum) VALUES "  # noqa: S608  # see above
            f"({migration.version}, '{migration.name}', '{migration.checksum}')"
        )
        log.info("migrations.applied", version=migration.version, name=migration.name)
    await _bound_system_logs(store)
    return tuple(migration.name for migration in missing)


def _read_migration(path: Path) -> Migration:
    match = _FILE_NAME.fullmatch(path.name)
    if match is None:
        raise NotReady(f"a migration is named NNNN_lower_case.sql, got {path.name!r}", reason="MIGRATIONS_MISNUMBERED")
    content = path.read_bytes()
    return Migration(
        version=int(match["version"]),
        name=match["name"],
        checksum=hashlib.sha256(content).hexdigest(),
        statements=_statements(content.decode()),
    )


def _statements(text: str) -> tuple[str, ...]:
    pieces = (piece.strip() for piece in _STATEMENT_END.split(text))
    return tuple(piece for piece in pieces if re.sub(r"--[^\n]*", "", piece).strip())


async def _applied(store: AnalyticsStore) -> Mapping[int, str]:
    rows = await store.query("SELECT version, toString(checksum) AS checksum FROM schema_migrations FINAL")
    return {int(row["version"]): str(row["checksum"]) for row in rows}


def _refuse_changed(migrations: Sequence[Migration], applied: Mapping[int, str]) -> None:
    for migration in migrations:
        recorded = applied.get(migration.version, migration.checksum)
        if recorded != migration.checksum:
            raise NotReady(
                f"migration {migration.version:04d}_{migration.name} was changed after it was applied "
                f"(checksum {migration.checksum[:12]}, applied {recorded[:12]}): restore the file and add a new one",
                reason="MIGRATION_CHANGED",
            )


async def _bound_system_logs(store: AnalyticsStore) -> None:
    """A server's own logs grow for ever unless told otherwise; the embedded engine has none."""
    rows = await store.query(
        "SELECT name FROM system.tables WHERE database = 'system' AND name LIKE '%\\_log' "
        "AND engine LIKE '%MergeTree' AND NOT position(create_table_query, ' TTL ') > 0"
    )
    for row in rows:
        await store.execute(
            f"ALTER TABLE system.`{row['name']}` MODIFY TTL event_date + INTERVAL {_SYSTEM_LOG_DAYS} DAY"
        )
