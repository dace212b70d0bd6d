"""Keeps a service's memory flat over the years: few malloc arenas, and nothing that stays in the collector's way.

Called by `service.py`, for a process that runs one service and nothing else.
"""

import ctypes
import gc
import os

# mallopt(3): M_ARENA_MAX. glibc makes eight arenas a core, one for each busy thread, and none of them gives back what
# another could use: ten times the documents cost the retriever 27 % more memory so, and 2 % with two arenas.
_M_ARENA_MAX = -8
_FEWEST_ARENAS, _MOST_ARENAS = 2, 8


def bound_arenas() -> bool:
    """One malloc arena a core, two to eight; False where the C library knows no such bound, and nothing is changed.

    `MALLOC_ARENA_MAX` in the environment goes first.
    """
    if "MALLOC_ARENA_MAX" in os.environ:
        return False
    arenas = max(_FEWEST_ARENAS, min(os.cpu_count() or 1, _MOST_ARENAS))
    try:
        return bool(ctypes.CDLL(None).mallopt(_M_ARENA_MAX, arenas))
    except (AttributeError, OSError):
        return False


def freeze() -> None:
    """Keep all that is there now out of every collection: one of all of it stopped streams for 80 ms.

    What is frozen is never freed.
    """
    gc.collect()
    gc.freeze()
