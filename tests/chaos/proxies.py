"""TCP proxies that see what matters before the one whom it is for, and can kill the process behind them then.

Used by `stack.py` (one before ClickHouse, one before the broker) and by `ingest_stack.py` (two before the broker).
"""

import asyncio
import contextlib
import re
import struct
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Protocol

from servicekit.events.topics import INTERACTION_COMPLETED

HOST = "127.0.0.1"
_CHUNK_BYTES = 65536
_PRODUCE, _OFFSET_COMMIT = 0, 8
_INSERT = re.compile(rb"POST [^ ]*INSERT[^ ]*interactions_raw", re.IGNORECASE)


class Trap:
    """Armed, it kills once, when what is watched for comes by; that is not passed on."""

    def __init__(self) -> None:
        self._kill: Callable[[], bool] | None = None
        self._sprung = asyncio.Event()

    async def catch(self, kill: Callable[[], bool], *, within_s: float) -> bool:
        """Arm and wait; whether it killed. `kill` says whether there was anything to kill."""
        self._sprung.clear()
        self._kill = kill
        try:
            async with asyncio.timeout(within_s):
                await self._sprung.wait()
        except TimeoutError:
            return False
        finally:
            self._kill = None
        return True

    def spring(self) -> bool:
        """Kill if armed; whether it did."""
        if self._kill is None or not self._kill():
            return False
        self._kill = None
        self._sprung.set()
        return True


class Watch(Protocol):
    """Follows one connection."""

    def request(self, chunk: bytes) -> bool:
        """Take bytes on their way to the server; whether they are what the trap is for."""
        ...

    def is_awaited(self, chunk: bytes) -> bool:
        """Whether these bytes of the server complete the answer that the trap is for."""


class InsertWatch:
    """ClickHouse over HTTP: the success of an insert of interactions."""

    def __init__(self) -> None:
        self._inserting = False

    def request(self, chunk: bytes) -> bool:
        """A request begins a chunk of its own: the client writes its head before its body."""
        if chunk.startswith((b"POST ", b"GET ")):
            self._inserting = _INSERT.match(chunk) is not None
        return False

    def is_awaited(self, chunk: bytes) -> bool:
        """Whether an insert was answered with success."""
        if not self._inserting or not chunk.startswith(b"HTTP/1.1 200"):
            return False
        self._inserting = False
        return True


class ProduceWatch:
    """Kafka's protocol: the answer to a Produce request to a topic; interactions, unless told otherwise."""

    def __init__(self, topic: str = INTERACTION_COMPLETED) -> None:
        self._topic = topic.encode()
        self._requests = _Frames()
        self._responses = _Frames()
        self._produced: set[int] = set()

    def request(self, chunk: bytes) -> bool:
        """Remember the correlation ids of what is produced."""
        for frame in self._requests.feed(chunk):
            api_key, _version, correlation_id = struct.unpack_from(">hhi", frame)
            if api_key == _PRODUCE and self._topic in frame:
                self._produced.add(correlation_id)
        return False

    def is_awaited(self, chunk: bytes) -> bool:
        """Whether one of them is acknowledged."""
        awaited = False
        for frame in self._responses.feed(chunk):
            (correlation_id,) = struct.unpack_from(">i", frame)
            if correlation_id in self._produced:
                self._produced.discard(correlation_id)
                awaited = True
        return awaited


class CommitWatch:
    """Kafka's protocol: a consumer that is about to commit offsets."""

    def __init__(self) -> None:
        self._requests = _Frames()

    def request(self, chunk: bytes) -> bool:
        """Whether offsets are to be committed."""
        frames = self._requests.feed(chunk)
        return any(struct.unpack_from(">h", frame)[0] == _OFFSET_COMMIT for frame in frames)

    def is_awaited(self, chunk: bytes) -> bool:
        """Answers do not matter."""
        del chunk
        return False


class _Frames:
    """Cuts a stream into Kafka's frames: four bytes of length, then as many bytes."""

    def __init__(self) -> None:
        self._kept = b""

    def feed(self, chunk: bytes) -> list[bytes]:
        """The frames that are whole now."""
        self._kept += chunk
        frames = []
        while len(self._kept) >= 4 and len(self._kept) >= 4 + (size := struct.unpack_from(">i", self._kept)[0]):
            frames.append(self._kept[4 : 4 + size])
            self._kept = self._kept[4 + size :]
        return frames


@asynccontextmanager
async def open_proxy(target_port: Callable[[], int], *, watch: Callable[[], Watch], trap: Trap) -> AsyncIterator[int]:
    """A proxy to a port of this machine while the block runs; its own port."""

    async def connected(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            far_reader, far_writer = await asyncio.open_connection(HOST, target_port())
        except OSError:
            writer.close()
            return
        follower = watch()

        def pass_on(chunk: bytes) -> bool:
            return not (follower.is_awaited(chunk) and trap.spring())

        def take_on(chunk: bytes) -> bool:
            return not (follower.request(chunk) and trap.spring())

        async with asyncio.TaskGroup() as directions:
            directions.create_task(_pump(reader, far_writer, passes=take_on))
            directions.create_task(_pump(far_reader, writer, passes=pass_on))

    server = await asyncio.start_server(connected, HOST, 0)
    try:
        yield server.sockets[0].getsockname()[1]
    finally:
        server.close()


async def _pump(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, *, passes: Callable[[bytes], bool]) -> None:
    """Copy until either side closes, or a chunk does not pass."""
    with contextlib.suppress(OSError):
        while (chunk := await reader.read(_CHUNK_BYTES)) and passes(chunk):
            writer.write(chunk)
            await writer.drain()
    writer.close()
