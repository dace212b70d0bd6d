"""The options that the URLs of remote embedders share. Used by the TEI and OpenAI-compatible embedders."""

import hashlib
from collections.abc import Mapping
from pathlib import Path

from servicekit.adapters.remote_embedding import CallLimits, Prefixes
from servicekit.errors import InvalidRequest

SHARED_OPTIONS = frozenset({"tokenizer", "query_prefix", "document_prefix", "batch", "concurrency"})
MAX_BATCH_TEXTS = 2_048
MAX_CONCURRENCY = 64
_HASH_CHARS = 8


def read_number(options: Mapping[str, str], name: str, *, default: int, maximum: int) -> int:
    """A whole number from 1.

    Raises:
        InvalidRequest: anything else.
    """
    text = options.get(name, str(default))
    if not text.isdecimal() or not 1 <= int(text) <= maximum:
        raise InvalidRequest(f"embedder_url: {name} must be 1..{maximum}, got {text!r}", field="embedder_url")
    return int(text)


def read_limits(options: Mapping[str, str], *, default_batch_texts: int) -> CallLimits:
    """`batch` texts a call, `concurrency` document batches at once."""
    return CallLimits(
        batch_texts=read_number(options, "batch", default=default_batch_texts, maximum=MAX_BATCH_TEXTS),
        document_batches=read_number(options, "concurrency", default=4, maximum=MAX_CONCURRENCY),
    )


def read_prefixes(options: Mapping[str, str]) -> Prefixes:
    """`query_prefix` and `document_prefix`, percent-encoded in the URL (`query:%20`)."""
    return Prefixes(options.get("query_prefix", ""), options.get("document_prefix", ""))


def name_prefixes(prefixes: Prefixes) -> str:
    """What stands for the prefixes in a revision, since they change vectors; empty where there are none."""
    if not prefixes.query and not prefixes.document:
        return ""
    digest = hashlib.sha256(f"{prefixes.query}\0{prefixes.document}".encode()).hexdigest()
    return f"-p{digest[:_HASH_CHARS]}"


def tokenizer_path(options: Mapping[str, str]) -> Path | None:
    """The `tokenizer=` file, where one is named."""
    given = options.get("tokenizer")
    return Path(given).expanduser() if given else None
