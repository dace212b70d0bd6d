"""What a tenant's corpus is at one version: one small JSON object, whose writing is the instant of every change.

Pure; used by `tenant.py`, which writes one such object for each commit, and by `searching.py`.

A commit of version V+1: chunks `born` at V+1 are put in beside the old ones, where no search at V sees them; then the
state of V+1 is written. It says which documents' older chunks are dead, and carries the new records of documents
(the journal) until they stand in their own collection. What was put in for a version that never came to be is named
by `aborted`, in case some of it arrives late.
"""

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

from servicekit.domain.filter import FieldKind


@dataclass(frozen=True, slots=True)
class Death:
    """Chunks of a document born before `cutoff` are dead, since the wall-clock time `since_s`."""

    cutoff: int
    since_s: float


@dataclass(frozen=True, slots=True)
class CorpusSnapshot:
    """A tenant at one version; never changed, only followed by another.

    `dropped` are collections whose tenant is to go, with the time since when; `building` is the model of the index
    that is built beside, with its dimension.
    """

    tenant: str
    version: int = 0
    model: str = ""
    dimension: int = 0
    documents: int = 0
    chunks: int = 0
    fields: Mapping[str, FieldKind] = field(default_factory=dict)
    journal: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    dead: Mapping[str, Death] = field(default_factory=dict)
    aborted: tuple[int, ...] = ()
    building: tuple[str, int] | None = None
    dropped: Mapping[str, float] = field(default_factory=dict)

    @property
    def next_version(self) -> int:
        """The version of the next commit."""
        return max(self.version, *self.aborted, 0) + 1

    def shows(self, document_id: str, born: int) -> bool:
        """Whether a chunk of this document, put in for version `born`, is current."""
        death = self.dead.get(document_id)
        return born <= self.version and born not in self.aborted and (death is None or born >= death.cutoff)

    def to_json(self) -> str:
        """For the object that holds it."""
        return json.dumps(asdict(self))

    @classmethod
    def from_json(cls, text: str) -> "CorpusSnapshot":
        """As it was written."""
        values = json.loads(text)
        values["fields"] = {name: FieldKind(kind) for name, kind in values["fields"].items()}
        values["dead"] = {name: Death(**death) for name, death in values["dead"].items()}
        values["aborted"] = tuple(values["aborted"])
        values["building"] = values["building"] and (values["building"][0], values["building"][1])
        return cls(**values)
