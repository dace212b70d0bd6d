"""Chooses what goes into a room, piece by piece in the order of their worth. Pure; called by `packing.py`.

A piece that does not fit is passed over, so that nothing is left out that would still fit; after an exchange that does
not fit no older one goes in. The first chunk that does not fit is shortened instead, once. Hence a larger room never
loses a piece but to one of more worth.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

from servicekit.domain.chunk import Chunk, ScoredChunk
from services.generator.context.shortening import shorten
from services.generator.context.worth import Piece


@dataclass(frozen=True, slots=True)
class Selection:
    """What goes in, by place in what was given; `shortened` are chunks of which a part goes in.

    `repeated` are chunks left out because one that went in holds their text; `weight` is about the tokens of all.
    """

    chunks: frozenset[int] = frozenset()
    messages: frozenset[int] = frozenset()
    shortened: Mapping[int, Chunk] = field(default_factory=dict)
    repeated: frozenset[int] = frozenset()
    weight: float = 0.0


@dataclass(frozen=True, slots=True)
class Choice:
    """What there is to choose from: pieces by worth, and which chunks hold the text of others."""

    chunks: Sequence[ScoredChunk]
    pieces: Sequence[Piece]
    holders: Mapping[int, tuple[int, ...]]
    weigh: Callable[[str], float]

    def select(self, room: float) -> Selection:
        """The pieces that weigh at most `room` together."""
        filling = _Filling(self, room)
        for piece in self.pieces:
            if piece.chunk is None:
                filling.admit_exchange(piece)
            else:
                filling.admit_chunk(piece, piece.chunk)
        return filling.selection()


class _Filling:
    """A room while it is filled."""

    def __init__(self, choice: Choice, room: float) -> None:
        self._choice = choice
        self._room = room
        self._used = 0.0
        self._chunks: dict[int, float] = {}
        self._shortened: dict[int, Chunk] = {}
        self._messages: list[int] = []
        self._exchanges_fit = True

    def admit_exchange(self, piece: Piece) -> None:
        self._exchanges_fit = self._exchanges_fit and self._used + piece.weight <= self._room
        if self._exchanges_fit:
            self._messages.extend(piece.messages)
            self._used += piece.weight

    def admit_chunk(self, piece: Piece, index: int) -> None:
        if self._is_held(index):
            return
        held = [other for other in self._chunks if index in self._choice.holders.get(other, ())]
        used = self._used - sum(self._chunks[other] for other in held)
        if used + piece.weight <= self._room:
            for other in held:
                del self._chunks[other]
                self._shortened.pop(other, None)
            self._chunks[index] = piece.weight
            self._used = used + piece.weight
        elif not self._shortened:
            self._shorten(piece, index)

    def _shorten(self, piece: Piece, index: int) -> None:
        chunk, weigh = self._choice.chunks[index].chunk, self._choice.weigh
        around = piece.weight - piece.text_weight
        left = self._room - self._used - around
        part = shorten(chunk, share=left / piece.text_weight, weigh=weigh) if piece.text_weight else None
        if part is not None:
            self._shortened[index] = part
            self._chunks[index] = around + weigh(part.text)
            self._used += self._chunks[index]

    def _is_held(self, index: int) -> bool:
        """Whether all of its text is there already."""
        holders = self._choice.holders.get(index, ())
        return any(holder in self._chunks and holder not in self._shortened for holder in holders)

    def selection(self) -> Selection:
        repeated = (index for index in self._choice.holders if index not in self._chunks and self._is_held(index))
        return Selection(
            frozenset(self._chunks), frozenset(self._messages), self._shortened, frozenset(repeated), self._used
        )
