"""The documents of one call or event on their way through the pipeline. Made and finished by `indexing.py`."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime

from servicekit.domain.chunk import Chunk
from servicekit.domain.filter import FieldKind
from servicekit.errors import InvalidRequest
from servicekit.ports.embedder import Embedder, Vector
from servicekit.ports.vector_store import StoredDocument
from services.retriever.ingestion.document import SubmittedDocument
from services.retriever.ingestion.progress import NoProgress, Progress
from services.retriever.ingestion.quality import Flag
from services.retriever.ingestion.results import IndexResult, refused
from services.retriever.ingestion.submission import EventPlace


@dataclass(frozen=True, slots=True)
class Draft:
    """A document to be stored anew: its chunks, and for each the text that is embedded and searched."""

    document: StoredDocument
    chunks: tuple[Chunk, ...]
    search_texts: tuple[str, ...]


@dataclass(slots=True)
class Item:
    """One document; open until it has a result, and what each step found out about it."""

    document: SubmittedDocument
    path: str
    stored: StoredDocument | None = None
    result: IndexResult | None = None
    draft: Draft | None = None
    vectors: Sequence[Vector] = ()
    flags: list[Flag] = field(default_factory=list)
    duplicate_of: str = ""
    language: str = ""

    def refuse(self, error: InvalidRequest) -> None:
        """End its way here."""
        self.result = refused(self.document, self._placed(error))
        self.draft = None

    def refuse_content(self, problem: str, *, reason: str) -> None:
        """End its way because of what it holds."""
        name = f"{self.path}.content"
        self.refuse(InvalidRequest(f"{name} {problem}", field=name, reason=reason))

    def _placed(self, error: InvalidRequest) -> InvalidRequest:
        """The error with the field as the request calls it: parsers and fetchers know no more than `document`."""
        if not error.field.startswith(("document.", "fetch_uri")) or self.path == "document":
            return error
        field = f"{self.path}.{error.field.removeprefix('document.')}"
        return InvalidRequest(error.message.replace(error.field, field, 1), field=field, reason=error.reason)

    def flag(self, flag: Flag) -> None:
        """Note what a check noticed, once."""
        if flag not in self.flags:
            self.flags.append(flag)


@dataclass(slots=True)
class Work:
    """All documents of a call; `fields` and `version` are the corpus's, `place` is the event's."""

    tenant: str
    items: tuple[Item, ...]
    now: datetime
    embedder: Embedder
    fields: Mapping[str, FieldKind] = field(default_factory=dict)
    place: EventPlace | None = None
    progress: Progress = field(default_factory=NoProgress)
    version: int = 0

    def open(self) -> Iterator[Item]:
        """Documents without a result yet."""
        return (item for item in self.items if item.result is None)

    def drafts(self) -> Iterator[tuple[Item, Draft]]:
        """Documents that are to be stored anew."""
        return ((item, item.draft) for item in self.items if item.draft is not None)
