"""Has untrusted formats read by processes of their own, each within bounds of memory and time.

Behind `preparing.BinaryReader`. A process is started when there is something to read, used again, and killed when it
takes too long or answers nonsense; what does that is refused (PARSE_LIMIT) and hinders no other document.
"""

import asyncio
import json
import sys
from asyncio.subprocess import DEVNULL, PIPE, Process
from collections import Counter
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager, suppress
from typing import Any

import structlog

from servicekit.errors import InvalidRequest
from services.retriever.formats.parse_worker import LENGTH
from services.retriever.formats.parsing import MAX_TEXT_CHARS, Block, BlockKind, ParsedDocument

# JSON writes a character of the text in at most six bytes, one beyond the basic plane in twelve.
_MAX_ANSWER_BYTES = 12 * MAX_TEXT_CHARS
_ATTEMPTS = 2
# A process that has read so many is replaced: whatever its libraries left behind ends with it.
_READ_BY_ONE = 200

log = structlog.get_logger()


class ParseWorkers:
    """At most `workers` processes at once, each with `memory_mb`; a document has `timeout_s`."""

    def __init__(self, *, workers: int, memory_mb: int, timeout_s: float, environment: Mapping[str, str]) -> None:
        self._free = asyncio.Semaphore(workers)
        self._memory_mb = memory_mb
        self._timeout_s = timeout_s
        self._environment = dict(environment)
        self._idle: list[Process] = []
        self._read: Counter[int] = Counter()

    async def read(self, content: bytes, *, media_type: str) -> ParsedDocument:
        """The document's text and blocks; see the port.

        A process that ends by itself may have been killed by someone else: the document gets a second one.
        """
        async with self._free:
            for _ in range(_ATTEMPTS):
                worker = await self._take()
                try:
                    async with asyncio.timeout(self._timeout_s):
                        answer = await _ask(worker, content, media_type)
                    document = _decode(answer)
                except TimeoutError as exc:
                    await _kill(worker)
                    raise _limit(f"takes longer than {self._timeout_s:g} s to read") from exc
                except (asyncio.IncompleteReadError, OSError, ValueError) as exc:
                    await _kill(worker)
                    log.warning("parse.worker_lost", media_type=media_type, error=repr(exc))
                except InvalidRequest as exc:
                    await self._put_back(worker, spent=exc.reason == "PARSE_LIMIT")
                    raise
                except BaseException:
                    await _kill(worker)
                    raise
                else:
                    await self._put_back(worker, spent=False)
                    return document
        raise _limit(f"ends the process that reads it, which has {self._memory_mb} MB")

    async def close(self) -> None:
        """End the processes that wait for work."""
        idle, self._idle = self._idle, []
        for worker in idle:
            await _kill(worker)

    async def _put_back(self, worker: Process, *, spent: bool) -> None:
        """Have it read again, unless it has read enough, or went to its bounds."""
        self._read[worker.pid] += 1
        if spent or self._read[worker.pid] >= _READ_BY_ONE:
            del self._read[worker.pid]
            await _kill(worker)
        else:
            self._idle.append(worker)

    async def _take(self) -> Process:
        while self._idle:
            worker = self._idle.pop()
            if worker.returncode is None:
                return worker
        return await asyncio.create_subprocess_exec(
            sys.executable,
            "-m",
            "services.retriever.formats.parse_worker",
            str(self._memory_mb),
            stdin=PIPE,
            stdout=PIPE,
            stderr=DEVNULL,
            env=self._environment,
        )


async def _ask(worker: Process, content: bytes, media_type: str) -> dict[str, Any]:
    assert worker.stdin is not None
    assert worker.stdout is not None
    worker.stdin.write(json.dumps({"media_type": media_type, "bytes": len(content)}).encode() + b"\n")
    worker.stdin.write(content)
    await worker.stdin.drain()
    (length,) = LENGTH.unpack(await worker.stdout.readexactly(LENGTH.size))
    if length > _MAX_ANSWER_BYTES:
        raise ValueError(f"an answer of {length} bytes")
    answer = json.loads(await worker.stdout.readexactly(length))
    if not isinstance(answer, dict):
        raise ValueError(f"an answer that is a {type(answer).__name__}")  # noqa: TRY004  # nonsense, whatever kind
    return answer


def _decode(answer: Mapping[str, Any]) -> ParsedDocument:
    """The document, checked: the process may have been taken over by what it read."""
    if "error" in answer:
        message, reason = answer["error"]
        raise InvalidRequest(str(message), field="document.content", reason=str(reason))
    try:
        text, end, blocks = str(answer["text"]), 0, []
        for start, stop, kind, path in answer["blocks"]:
            if not end <= start < stop <= len(text):
                raise ValueError(f"a block from {start} to {stop}")
            blocks.append(Block(start, stop, BlockKind(kind), tuple(str(name) for name in path)))
            end = stop
        return ParsedDocument(text, tuple(blocks), title=str(answer["title"]), link_chars=int(answer["link_chars"]))
    except (KeyError, TypeError) as exc:
        raise ValueError("an answer without a document") from exc


async def _kill(worker: Process) -> None:
    with suppress(ProcessLookupError):
        worker.kill()
    await worker.wait()


def _limit(problem: str) -> InvalidRequest:
    return InvalidRequest(
        f"document.content {problem}: simplify or split it", field="document.content", reason="PARSE_LIMIT"
    )


@asynccontextmanager
async def running_workers(
    *, workers: int, memory_mb: int, timeout_s: float, environment: Mapping[str, str]
) -> AsyncIterator[ParseWorkers]:
    """The pool; its processes end with the block."""
    pool = ParseWorkers(workers=workers, memory_mb=memory_mb, timeout_s=timeout_s, environment=environment)
    try:
        yield pool
    finally:
        await pool.close()
