"""Chunks of documents, as they are retrieved, packed into prompts and cited.

Pure; made by the retriever, carried by the gateway, read by the generator and whoever judges answers.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field

MetadataScalar = str | int | float | bool


@dataclass(frozen=True, slots=True)
class Chunk:
    """A piece of a document: `text` stands at characters `start` to `end` of the document's text.

    `content_hash` is the SHA-256 of `text` (lower-case hexadecimal), `token_count` counts the embedding
    model's tokens, `ordinal` is its place in the document from 0, `revision` counts from 1.
    """

    chunk_id: str
    document_id: str
    revision: int
    content_hash: str
    text: str
    title: str = ""
    source_uri: str = ""
    heading_path: tuple[str, ...] = ()
    start: int = 0
    end: int = 0
    ordinal: int = 0
    token_count: int = 0
    metadata: Mapping[str, MetadataScalar] = field(default_factory=dict)

    @property
    def context(self) -> str:
        """Title and headings, outermost first, each once: they often name what the text only calls "it"."""
        return " > ".join(dict.fromkeys(name for name in (self.title, *self.heading_path) if name))


@dataclass(frozen=True, slots=True)
class ScoredChunk:
    """A chunk with its place in one ranking: `rank` from 1, scores comparable within that search only.

    Each stage that scored the chunk left its score; `score` is that of the last one. `passage` numbers runs of chunks
    that follow each other in their document (0: not grouped); `overlap_chars` at its begin repeat the chunk before.
    """

    chunk: Chunk
    rank: int
    score: float
    dense_score: float | None = None
    sparse_score: float | None = None
    fusion_score: float | None = None
    rerank_score: float | None = None
    mmr_score: float | None = None
    neighbour: bool = False
    passage: int = 0
    overlap_chars: int = 0


@dataclass(frozen=True, slots=True)
class Citation:
    """A marker such as `[1]` at characters `start` to `end` of an answer, and the chunk it points to."""

    marker: str
    start: int
    end: int
    chunk: Chunk
