"""The first question of clickhouse-go (Grafana's driver): who are you, and which protocol revision do you speak?

Called by `services.local.clickhouse.answer`. The engine writes Native as revision 0 had it and cannot be told another,
so this one answer is written here, in the client's revision: from then on the client reads what the engine writes.
"""

import struct

from services.local.clickhouse.statement import Statement

_QUESTION = b"SELECT displayName(), version(), revision(), timezone()"
_REVISION_WITH_CUSTOM_SERIALIZATION = 54454
_BLOCK_INFO = b"\x01\x00\x02\xff\xff\xff\xff\x00"  # no overflow rows, no bucket
_SPOKEN_REVISION = 0


def is_hello(statement: Statement, *, revision: int) -> bool:
    """Whether this is that question, from a client that states its revision."""
    return revision > 0 and b" ".join(statement.text.split()) == _QUESTION


def hello(*, name: str, version: str, timezone: str, revision: int) -> bytes:
    """One Native block of one row, as a client of `revision` reads it."""
    custom = b"\x00" if revision >= _REVISION_WITH_CUSTOM_SERIALIZATION else b""
    columns = (
        (b"displayName()", b"String", _text(name.encode())),
        (b"version()", b"String", _text(version.encode())),
        (b"revision()", b"UInt32", struct.pack("<I", _SPOKEN_REVISION)),
        (b"timezone()", b"String", _text(timezone.encode())),
    )
    body = b"".join(_text(column) + _text(kind) + custom + value for column, kind, value in columns)
    return _BLOCK_INFO + bytes((len(columns), 1)) + body


def _text(value: bytes) -> bytes:
    return bytes((len(value),)) + value  # all are shorter than 128
