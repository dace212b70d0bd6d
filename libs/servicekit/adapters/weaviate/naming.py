"""Names of collections, tenants, properties and objects in Weaviate, and texts spelled so that filters are exact.

Pure; used by all of this package.
"""

import hashlib
import re
from uuid import UUID, uuid5

from servicekit.domain.filter import DOCUMENT_FIELDS, FieldKind

_SPACE = UUID("7d0f3c52-5c1b-4f0e-9a51-3f2a8c0d6b11")
_KIND_PREFIXES = {FieldKind.TEXT: "mt_", FieldKind.NUMBER: "mn_", FieldKind.BOOLEAN: "mb_"}
_PLAIN = re.compile(r"[a-z0-9]")
# Characters that a term or a pattern cannot hold, and those that spell them: a neighbour and one of two tails, which
# stand nowhere else. So the order by code point stays, and a spelled part occurs exactly where the part does.
_TAILS = ("\x01", "\x02")
_PAIRS = {"\x00": "\x00\x01", "\x03": "\x02\x03", "\t": "\t\n", ")": ")*", ">": ">?"}
_SPELLED = str.maketrans(
    {one: lead + tail for lead, pair in _PAIRS.items() for one, tail in zip(pair, _TAILS, strict=True)}
)
_BEGIN, _END = "=", "\x00"


def text_key(value: str) -> str:
    """A text as its filterable property holds it: exact in case, spaces and wildcards, ordered by code point.

    Weaviate trims a term and has no empty one; in a pattern it reads `*` and `?` as wildcards whatever precedes them,
    and a wildcard stops at the end of a line.
    """
    return f"{_BEGIN}{value.translate(_SPELLED)}{_END}"


def containing_pattern(value: str) -> str:
    """The `Like` pattern that matches the keys of the texts that hold this one."""
    return f"{_BEGIN}*{value.translate(_SPELLED)}*{_END}"


def order_key(value: str) -> str:
    """A text that Weaviate's sorting, which looks past case and accents, orders by code point."""
    return value.encode("utf-8", "surrogatepass").hex() or "-"


def property_name(field: str, kind: FieldKind) -> str:
    """The property of a metadata field; a kind is a tenant's own, so each has properties of its own.

    Weaviate folds the case of names: a capital is spelled `_` and its small letter, `_` itself twice.
    """
    if field in DOCUMENT_FIELDS:
        return f"d{field}"
    return _KIND_PREFIXES[kind] + "".join(map(_spell, field))


def _spell(character: str) -> str:
    if _PLAIN.fullmatch(character):
        return character
    if character == "_":
        return "__"
    small = character.lower()
    return f"_{small}" if re.fullmatch(r"[a-z]", small) and character.isascii() else f"_0{ord(character):x}z"


def tenant_name(tenant: str) -> str:
    """A name that Weaviate takes, recognisable and never shared; the true one stands in the tenant's state."""
    readable = re.sub(r"[^a-z0-9]+", "-", tenant.lower())[:32].strip("-")
    return f"{readable or 'tenant'}-{digest(tenant)[:16]}"


def chunks_collection(prefix: str, model: str) -> str:
    """The collection of the chunks embedded by a model."""
    return f"{prefix}Chunks{digest(model)[:16]}"


def place_key(document_id: str, ordinal: int) -> str:
    """A chunk's place as one term."""
    return f"{digest(document_id)[:32]}-{ordinal}"


def digest(text: str) -> str:
    """SHA-256, hexadecimal."""
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()


def object_id(*parts: str | int) -> UUID:
    """The identifier of an object that these parts name; the same parts, the same object."""
    return uuid5(_SPACE, digest("\x00".join(map(str, parts))))
