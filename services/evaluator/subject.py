"""What is scored: one question, its answer, the chunks it was given and the citations it made.

Pure; built by `convert.py` from an interaction or a `ScoreAnswer` request, read by every metric.
"""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Self

from servicekit.domain.score import Unmeasured

_MARKER = re.compile(r"\[(\d{1,3})\]")


class Ending(StrEnum):
    """How the interaction ended, as far as a metric cares."""

    ANSWERED = "answered"
    REFUSED = "refused"
    BLOCKED = "blocked"
    UNFINISHED = "unfinished"


@dataclass(frozen=True, slots=True)
class UsedChunk:
    """A chunk that the answer was given, by content hash, at its rank (1 is best)."""

    content_hash: str
    rank: int
    chunk_id: str = ""


@dataclass(frozen=True, slots=True)
class CitedSpan:
    """A citation: the characters `start:end` of the answer that carry its marker, and what it points at."""

    start: int
    end: int
    content_hash: str


@dataclass(frozen=True, slots=True)
class Subject:
    """One answer to score; `question` and `answer` are as recorded, after redaction."""

    question: str
    answer: str
    ending: Ending = Ending.ANSWERED
    chunks: Sequence[UsedChunk] = ()
    citations: Sequence[CitedSpan] = ()
    texts: Mapping[str, str] = field(default_factory=dict)
    missing: Mapping[str, Unmeasured] = field(default_factory=dict)

    @classmethod
    def of_texts(cls, question: str, answer: str, chunk_texts: Sequence[str]) -> Self:
        """A subject whose chunks are given by their texts; the marker `[n]` cites the n-th.

        A marker beyond the chunks is a citation of nothing: its place stands, its hash is found nowhere.
        """
        hashes = [str(number) for number in range(1, len(chunk_texts) + 1)]
        return cls(
            question=question,
            answer=answer,
            chunks=tuple(UsedChunk(key, rank) for rank, key in enumerate(hashes, start=1)),
            citations=tuple(
                CitedSpan(found.start(), found.end(), str(int(found[1]))) for found in _MARKER.finditer(answer)
            ),
            texts=dict(zip(hashes, chunk_texts, strict=True)),
        )

    def reason_without_answer(self) -> Unmeasured | None:
        """Why metrics of the answer cannot be measured, or None if they can."""
        if self.ending is Ending.BLOCKED:
            return Unmeasured.BLOCKED
        if not self.answer.strip():
            return Unmeasured.NO_ANSWER
        return None

    def reason_without_chunks(self) -> Unmeasured | None:
        """Why metrics of the context cannot be measured, or None if every chunk's text is at hand."""
        if not self.chunks:
            return Unmeasured.NO_CHUNKS
        for chunk in self.chunks:
            if chunk.content_hash in self.missing:
                return self.missing[chunk.content_hash]
            if chunk.content_hash not in self.texts:
                return Unmeasured.CHUNK_NOT_FOUND
        return None

    def ranked_texts(self) -> tuple[str, ...]:
        """The chunks' texts, best rank first."""
        ranked = sorted(self.chunks, key=lambda chunk: chunk.rank)
        return tuple(self.texts[chunk.content_hash] for chunk in ranked)
