"""The engine alone: inserts files of rows straight into chDB, batch by batch, as fast as it takes them.

A process of its own, started by `sink.py`: `python -m tests.bench._engine_inserts DATA INSERT.json`. For each line of
standard input, the names of files, it inserts their bytes and prints the seconds and the CPU seconds that took.
"""

import json
import os
import sys
import time
from pathlib import Path

from chdb.session import Session


def main() -> None:
    """Serve until standard input ends."""
    data, insert = sys.argv[1], json.loads(Path(sys.argv[2]).read_text(encoding="utf-8"))
    session = Session(data)
    session.query("USE binnacle")
    settings = {"async_insert": "0", **insert["settings"]}
    for name, value in settings.items():
        escaped = value.replace("\\", "\\\\").replace("'", "\\'")
        session.query(f"SET {name} = '{escaped}'")
    head = insert["sql"].removesuffix(" FORMAT Protobuf")
    print("ready", flush=True)
    for line in sys.stdin:
        batches = [Path(name).read_bytes() for name in line.split()]
        began, cpu = time.perf_counter(), time.process_time()
        for rows in batches:
            with os.fdopen(os.memfd_create("rows"), "wb") as memory:
                memory.write(rows)
                memory.flush()
                path = f"/proc/self/fd/{memory.fileno()}"
                session.query(f"{head} FROM INFILE '{path}' COMPRESSION 'none' FORMAT Protobuf")
        print(json.dumps([time.perf_counter() - began, time.process_time() - cpu]), flush=True)
    session.close()


if __name__ == "__main__":
    main()
