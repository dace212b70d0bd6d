"""How much the embedded ClickHouse takes on: memory, time and queries, with what each limit means for the engine.

Pure; made by `services.local.clickhouse_front` from its flags.
"""

from dataclasses import dataclass
from urllib.parse import urlencode

MIB = 1 << 20
# An insert into a table of many columns counts half a gigabyte of write buffers, most of which it never touches.
MIN_MEMORY_MB = 1280
# What the process holds beside what the engine counts: its library's pages, Python, and what the allocator keeps.
_UNCOUNTED_BYTES = 384 * MIB


@dataclass(frozen=True, slots=True)
class Limits:
    """Every bound of one front; `max_memory_mb` (of 2**20 bytes) is the process's resident memory."""

    max_memory_mb: int = 2048
    max_query_s: int = 600
    threads: int = 8
    max_waiting: int = 100
    max_wait_s: float = 30.0
    send_within_s: float = 60.0
    drain_s: int = 10

    def __post_init__(self) -> None:
        """Refuse a bound that the engine alone would break."""
        if self.max_memory_mb < MIN_MEMORY_MB:
            raise ValueError(f"max_memory_mb must be at least {MIN_MEMORY_MB}, got {self.max_memory_mb}")

    @property
    def engine_bytes(self) -> int:
        """What the engine may count as used."""
        return self.max_memory_mb * MIB - _UNCOUNTED_BYTES - self.all_bodies_bytes

    @property
    def query_bytes(self) -> int:
        """What one query that reads may hold, so that a greedy one fails before the inserts beside it do."""
        return self.engine_bytes * 3 // 4

    @property
    def body_bytes(self) -> int:
        """What one request may send, after decoding."""
        return self.all_bodies_bytes // 2

    @property
    def all_bodies_bytes(self) -> int:
        """What all requests that are being received or inserted may hold together."""
        return self.max_memory_mb * MIB // 8

    @property
    def result_bytes(self) -> int:
        """What a result may measure that is held whole, for its format or because the client waits for the end."""
        return self.engine_bytes // 8

    @property
    def purge_bytes(self) -> int:
        """Resident memory from which on the allocator keeps nothing for later."""
        return self.max_memory_mb * MIB * 5 // 8

    @property
    def engine_parameters(self) -> str:
        """As a query string of the engine's connections."""
        return urlencode(
            {
                "max_server_memory_usage": self.engine_bytes,
                "merges_mutations_memory_usage_soft_limit": self.engine_bytes // 2,
                "mark_cache_size": self.engine_bytes // 16,
                "primary_index_cache_size": self.engine_bytes // 16,
                "index_mark_cache_size": self.engine_bytes // 16,
            }
        )

    def settings(self, *, reads: bool, is_held: bool) -> dict[str, str]:
        """Settings of a query, which its own may change; a result that is held whole is bounded too."""
        settings = {"max_execution_time": str(self.max_query_s)}
        if reads:
            settings["max_memory_usage"] = str(self.query_bytes)
        if reads and is_held:
            settings["max_result_bytes"] = str(self.result_bytes)
        return settings
