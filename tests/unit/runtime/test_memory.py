"""What keeps a service's memory flat."""

import subprocess
import sys

_GROWTH = """
import ctypes, re, sys, threading
from servicekit.runtime.memory import bound_arenas
bounded = bound_arenas() if sys.argv[1] == "bounded" else None
libc = ctypes.CDLL(None)
together = threading.Barrier(24)
libc.malloc.restype = ctypes.c_void_p

def hold():
    libc.malloc(1000)
    together.wait(10)

threads = [threading.Thread(target=hold) for _ in range(24)]
[thread.start() for thread in threads]
[thread.join() for thread in threads]
libc.malloc_stats()
print(bounded)
"""


def _arenas(how: str) -> int:
    done = subprocess.run([sys.executable, "-c", _GROWTH, how], capture_output=True, text=True, timeout=60, check=True)
    return done.stderr.count("Arena")


def test_threads_share_few_arenas() -> None:
    """Two dozen threads that allocate at once make as many arenas as were allowed, not one each."""
    assert _arenas("bounded") <= 8 < _arenas("unbounded")
