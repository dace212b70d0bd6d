"""How the drift monitor and its worker process talk: JSON behind a four-byte length.

Pure; used by `laboratory.py` and `worker.py`.
"""

import json
from typing import Any, BinaryIO

HEADER_BYTES = 4
MAX_FRAME_BYTES = 64 * 1024 * 1024


def pack(message: Any) -> bytes:
    """The message as one frame; NaN is no JSON and raises ValueError."""
    body = json.dumps(message, allow_nan=False, separators=(",", ":")).encode()
    if len(body) > MAX_FRAME_BYTES:
        raise ValueError(f"a frame holds at most {MAX_FRAME_BYTES} bytes, got {len(body)}")
    return len(body).to_bytes(HEADER_BYTES, "big") + body


def body_length(header: bytes) -> int:
    """The length that a header announces; ValueError if it is out of bounds."""
    length = int.from_bytes(header, "big")
    if length > MAX_FRAME_BYTES:
        raise ValueError(f"a frame holds at most {MAX_FRAME_BYTES} bytes, this one announces {length}")
    return length


def read_frame(stream: BinaryIO) -> Any | None:
    """The next message, or None at the end of the stream (a frame cut short counts as the end)."""
    header = stream.read(HEADER_BYTES)
    if len(header) < HEADER_BYTES:
        return None
    length = body_length(header)
    body = stream.read(length)
    return json.loads(body) if len(body) == length else None
