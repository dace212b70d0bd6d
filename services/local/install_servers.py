"""`python -m services.local.install_servers`: fetches or builds what the tests on real servers run, and keeps it.

What `make test-servers` does first, so that no test waits for a build. A server that this machine cannot make is told
of and left out: its tests say then that they are skipped, and why.
"""

import argparse
import os
import sys
import time
from collections.abc import Callable, Sequence

from servicekit.errors import NotReady
from services.local import native_install, native_llama, native_redis, native_weaviate

# Name, what tests call a server of one's own, what stands in the way here, and what makes it.
_SERVERS: tuple[tuple[str, str, Callable[[], str], Callable[[], object]], ...] = (
    ("Kafka", "BINNACLE_TEST_KAFKA", native_install.obstacle, native_install.install_kafka),
    ("Weaviate", "BINNACLE_TEST_WEAVIATE", native_weaviate.obstacle, native_weaviate.install_weaviate),
    ("Redis", "BINNACLE_TEST_REDIS", native_redis.obstacle, native_redis.find_redis),
    ("llama.cpp", "BINNACLE_TEST_LLAMA", native_llama.obstacle, native_llama.install_llama),
)


def main(arguments: Sequence[str] | None = None) -> int:
    """0: all are there, or are not for this machine; 2: one could not be made."""
    argparse.ArgumentParser(prog="python -m services.local.install_servers", description=__doc__).parse_args(arguments)
    failed = False
    for name, variable, obstacle, install in _SERVERS:
        if os.environ.get(variable):
            continue
        if reason := obstacle():
            _say(f"{name}: left out, {reason}")
            continue
        _say(f"{name}: fetched or built unless it is kept (Kafka seconds, Weaviate 3 minutes, llama.cpp 10, once)")
        started_s = time.monotonic()
        try:
            install()
        except NotReady as exc:
            _say(f"{name}: {exc.message}")
            failed = True
        else:
            _say(f"{name}: there after {time.monotonic() - started_s:.0f} s")
    return 2 if failed else 0


def _say(line: str) -> None:
    sys.stderr.write(f"» {line}\n")
    sys.stderr.flush()


if __name__ == "__main__":
    sys.exit(main())
