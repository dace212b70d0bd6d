"""A request's body in memory that the engine, in the same process, can open as a file.

Filled by `services.local.clickhouse.receiving` as the bytes come; rows of an insert are not joined in Python.
"""

import mmap
import os
import tempfile
import threading
import weakref
from pathlib import Path

from services.local.clickhouse.errors import refusal

_COPY_BYTES = 1 << 20


class BodyMemory:
    """What the bodies of all requests may hold, one of them and together."""

    def __init__(self, *, one_bytes: int, all_bytes: int) -> None:
        self.one_bytes = one_bytes
        self._all_bytes = all_bytes
        self._held_bytes = 0
        self._lock = threading.Lock()  # a body is let go in whatever thread used it last

    def take(self, size: int, *, of_body: int) -> None:
        """Count `size` bytes more for a body that holds `of_body` already.

        Raises:
            EngineError: TOO_MANY_BYTES for one body, or MEMORY_LIMIT_EXCEEDED for all, which is worth another try.
        """
        if size + of_body > self.one_bytes:
            raise refusal(
                f"the request body exceeds {self.one_bytes} bytes: insert in smaller batches",
                code=307,
                name="TOO_MANY_BYTES",
            )
        with self._lock:
            if self._held_bytes + size > self._all_bytes:
                raise refusal(
                    f"memory limit exceeded: request bodies hold {self._held_bytes} of {self._all_bytes} bytes, "
                    "try again when the inserts before this one are done",
                    code=241,
                    name="MEMORY_LIMIT_EXCEEDED",
                )
            self._held_bytes += size

    def give_back(self, size: int) -> None:
        """Count `size` bytes less."""
        with self._lock:
            self._held_bytes -= size


class Body:
    """Bytes behind a path; they are let go by `close`, or when nobody refers to them any more, in whatever thread."""

    def __init__(self, memory: BodyMemory) -> None:
        self._memory = memory
        self._file, self.path = _open_file()
        self._taken = [0]
        self._let_go = weakref.finalize(self, _let_go, self._file, self.path, memory, self._taken)

    @property
    def size(self) -> int:
        """In bytes."""
        return self._taken[0]

    def write(self, data: bytes) -> None:
        """Append.

        Raises:
            EngineError: TOO_MANY_BYTES, MEMORY_LIMIT_EXCEEDED.
        """
        self._memory.take(len(data), of_body=self.size)
        self._taken[0] += len(data)
        view = memoryview(data)
        while view:
            view = view[os.write(self._file, view) :]

    def close(self) -> None:
        """Let the bytes go now."""
        self._let_go()

    def view(self) -> mmap.mmap | bytes:
        """The bytes without a copy; read-only."""
        return mmap.mmap(self._file, self.size, prot=mmap.PROT_READ) if self.size else b""

    def fresh(self) -> "Body":
        """An empty one that counts for the same memory."""
        return Body(self._memory)

    def after(self, head: bytes) -> "Body":
        """`head` and then these bytes, as a body of its own.

        Raises:
            EngineError: TOO_MANY_BYTES, MEMORY_LIMIT_EXCEEDED.
        """
        whole = self.fresh()
        whole.write(head)
        self._copy_to(whole, start=0)
        return whole

    def behind(self, position: int) -> "Body":
        """What comes after `position`, as a body of its own.

        Raises:
            EngineError: MEMORY_LIMIT_EXCEEDED.
        """
        if not position:
            return self
        rest = self.fresh()
        self._copy_to(rest, start=position)
        return rest

    def _copy_to(self, other: "Body", *, start: int) -> None:
        while data := os.pread(self._file, _COPY_BYTES, start):
            other.write(data)
            start += len(data)


def _open_file() -> tuple[int, str]:
    if hasattr(os, "memfd_create"):
        file = os.memfd_create("body")
        return file, f"/proc/self/fd/{file}"
    return tempfile.mkstemp(prefix="clickhouse-body-")


def _let_go(file: int, path: str, memory: BodyMemory, taken: list[int]) -> None:
    os.close(file)
    if not path.startswith("/proc/"):
        Path(path).unlink(missing_ok=True)
    memory.give_back(taken[0])
