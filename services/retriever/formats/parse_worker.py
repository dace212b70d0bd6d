"""A process that reads one untrusted file after another: `python -m services.retriever.formats.parse_worker MEMORY_MB`.

Started by `parse_workers.py`, spoken to over its standard streams: a line of JSON and the bytes come in, the length of
an answer and the answer as JSON go out. Its memory is bounded by the kernel. It imports no more than the parsers.
"""

import json
import resource
import struct
import sys
from typing import Any, BinaryIO

from servicekit.errors import InvalidRequest
from services.retriever.formats.parsing import ParsedDocument
from services.retriever.formats.reading import parse_binary

LENGTH = struct.Struct(">Q")
_FILES = 64


def main() -> None:
    """Answer until the input ends."""
    most = int(sys.argv[1]) * 1024 * 1024
    resource.setrlimit(resource.RLIMIT_AS, (most, most))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    resource.setrlimit(resource.RLIMIT_FSIZE, (0, 0))
    resource.setrlimit(resource.RLIMIT_NOFILE, (_FILES, _FILES))
    serve(sys.stdin.buffer, sys.stdout.buffer)


def serve(requests: BinaryIO, answers: BinaryIO) -> None:
    """One answer for each request, in order."""
    while line := requests.readline():
        request = json.loads(line)
        content = requests.read(request["bytes"])
        answer = json.dumps(_answer(content, request["media_type"])).encode()
        answers.write(LENGTH.pack(len(answer)) + answer)
        answers.flush()


def _answer(content: bytes, media_type: str) -> dict[str, Any]:
    try:
        return encode(parse_binary(content, media_type=media_type))
    except InvalidRequest as exc:
        return {"error": [exc.message, exc.reason]}
    except (MemoryError, RecursionError) as exc:
        return {"error": [f"document.content cannot be read within bounds ({type(exc).__name__})", "PARSE_LIMIT"]}


def encode(document: ParsedDocument) -> dict[str, Any]:
    """A document as JSON holds it: the other side trusts nothing that could run."""
    blocks = [[one.start, one.end, one.kind, list(one.heading_path)] for one in document.blocks]
    return {"text": document.text, "title": document.title, "blocks": blocks, "link_chars": document.link_chars}


if __name__ == "__main__":
    main()
