"""Builds the embedding model's graph ahead of the first start: `python -m servicekit.adapters.onnx.build`.

Run at installation (`make model`, image builds); the retriever would otherwise do the same when it starts.
"""

import argparse
import sys
from collections.abc import Sequence

from servicekit.adapters.onnx.embedder import parse_url, prepare
from servicekit.errors import BinnacleError

DEFAULT_URL = "onnx://minilm?precision=int8"


def main(arguments: Sequence[str] | None = None) -> int:
    """Exit status 0 once the graph lies in the cache; its path goes to standard output."""
    parser = argparse.ArgumentParser(prog="servicekit.adapters.onnx.build", description=__doc__)
    parser.add_argument("url", nargs="?", default=DEFAULT_URL, help="an embedder URL (default: %(default)s)")
    options_url = parser.parse_args(arguments).url
    try:
        made = prepare(parse_url(options_url))
    except BinnacleError as exc:
        sys.stderr.write(f"embedding model: {exc.message}\n")
        return 1
    sys.stdout.write(f"{made}\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
