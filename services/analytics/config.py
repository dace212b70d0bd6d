"""Settings of analytics. Read once at start by the runtime."""

from pathlib import Path

from pydantic import Field

from servicekit.runtime.settings import ServiceSettings, settings_config

_MIGRATIONS = Path(__file__).parents[2] / "infra" / "clickhouse" / "migrations"


class Settings(ServiceSettings):
    """Environment prefix `BINNACLE_ANALYTICS__`."""

    model_config = settings_config("analytics")

    port: int = 7706
    analytics_store_url: str = Field(
        default="clickhouse://127.0.0.1:8123/binnacle", description="where everything is stored and read"
    )
    migrations_dir: Path = Field(default=_MIGRATIONS, description="the numbered SQL files that make the schema")
    migrate_within_s: float = Field(default=60.0, gt=0, description="how long a start waits for the store")
    store_timeout_s: float = Field(default=60.0, gt=0, description="for one query or insert")
    batch_rows: int = Field(default=50_000, ge=1, le=1_000_000, description="rows of one insert at most")
    batch_bytes: int = Field(default=64 * 1024 * 1024, ge=1024, description="bytes of one insert, about")
    batch_age_s: float = Field(default=1.0, gt=0, le=60, description="how long a row waits for company")
    max_buffered_bytes: int = Field(
        default=160 * 1024 * 1024, ge=1024, description="waiting rows above which fetching pauses"
    )
    dead_letter_max_ratio: float = Field(
        default=0.1, gt=0, le=1, description="share of a topic's last 1,000 records above which it is stopped"
    )
    dead_letter_max_in_a_row: int = Field(
        default=50, ge=0, description="records of a topic refused in a row above which it is stopped"
    )
    rollup_every_s: float = Field(default=5.0, gt=0, le=600, description="between two countings of touched minutes")
