"""Watches the process's resident memory: the engine counts what is in use, not what its allocator keeps.

Started by `services.local.clickhouse.serving`.
"""

import os
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

_PERIOD_S = 0.1
_STATM = Path("/proc/self/statm")


@contextmanager
def watched_memory(release: Callable[[], None], *, above_bytes: int) -> Iterator[None]:
    """Within the block, call `release` ten times a second while more than `above_bytes` is resident; Linux only."""
    if not _STATM.exists():
        yield
        return
    ended = threading.Event()
    watcher = threading.Thread(target=_watch, args=(release, above_bytes, ended), name="memory")
    watcher.start()
    try:
        yield
    finally:
        ended.set()
        watcher.join()


def _watch(release: Callable[[], None], above_bytes: int, ended: threading.Event) -> None:
    while not ended.wait(_PERIOD_S):
        if resident_bytes() > above_bytes:
            release()


def resident_bytes() -> int:
    """What this process holds of the machine's memory now."""
    return int(_STATM.read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")
