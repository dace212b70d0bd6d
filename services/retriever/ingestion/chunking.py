"""Cuts a parsed document into chunks that the embedding model can hold whole. Pure; called by `indexing.py`.

A chunk is a slice of the text under one heading, cut between sentences or lines, repeating the end of the chunk
before it. Counted by the embedder's own tokenizer on the very slice, so that the bound holds exactly.
"""

from bisect import bisect_left
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import groupby

from servicekit.domain.sentences import split_sentences
from servicekit.ports.embedder import Tokenizer
from services.retriever.formats.parsing import Block, BlockKind, ParsedDocument

# Names the rules below; a change of them makes every document due for indexing again.
CHUNKER_VERSION = "1"


@dataclass(frozen=True, slots=True)
class ChunkRules:
    """`max_tokens` leaves room for the headings that are embedded in front of a chunk."""

    max_tokens: int = 220
    overlap_tokens: int = 32
    # A section shorter than this shares a chunk with the one after it.
    min_section_tokens: int = 48


@dataclass(frozen=True, slots=True)
class Piece:
    """A chunk to be: `text[start:end]`, its tokens, and the headings that hold for all of it."""

    start: int
    end: int
    token_count: int
    heading_path: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class _Unit:
    """What is never parted unless it alone exceeds the bound."""

    start: int
    end: int
    tokens: int
    heading_path: tuple[str, ...]
    is_heading: bool


def cut(document: ParsedDocument, tokenizer: Tokenizer, *, rules: ChunkRules) -> tuple[Piece, ...]:
    """Pieces in order; every character that is not blank stands in at least one of them."""
    offsets = tokenizer.offsets(document.text)
    starts = [start for start, _ in offsets]
    units = [
        part
        for block in document.blocks
        for unit in _units(document.text, block, starts)
        for part in _split_long(document.text, unit, tokenizer, rules.max_tokens)
    ]
    pieces: list[Piece] = []
    for section in _sections(units, rules):
        for run in _pack(section, rules):
            pieces += _settle(document.text, run, tokenizer, rules.max_tokens)
    return tuple(_in_order(pieces))


def _in_order(pieces: Sequence[Piece]) -> Iterator[Piece]:
    """Sorted by place, without those that another holds whole.

    A run that was cut again can leave its last part inside the overlap with which the next run begins.
    """
    covered = -1
    for piece in sorted(pieces, key=lambda piece: (piece.start, -piece.end)):
        if piece.end > covered:
            yield piece
            covered = piece.end


def _units(text: str, block: Block, starts: Sequence[int]) -> Iterator[_Unit]:
    for start, end in _spans(text, block):
        tokens = bisect_left(starts, end) - bisect_left(starts, start)
        yield _Unit(start, end, tokens, block.heading_path, block.kind is BlockKind.HEADING)


def _spans(text: str, block: Block) -> Iterator[tuple[int, int]]:
    if block.kind is BlockKind.HEADING:
        yield block.start, block.end
    elif block.kind is BlockKind.PROSE:
        for sentence in split_sentences(text[block.start : block.end]):
            yield block.start + sentence.start, block.start + sentence.end
    else:
        position = block.start
        for line in text[block.start : block.end].splitlines(keepends=True):
            content = line.rstrip()
            if content.strip():
                yield position, position + len(content)
            position += len(line)


def _split_long(text: str, unit: _Unit, tokenizer: Tokenizer, max_tokens: int) -> Iterator[_Unit]:
    """A unit over the bound, cut where a word begins, else where a token does."""
    if unit.tokens <= max_tokens:
        yield unit
        return
    for start, end, tokens in split_at_tokens(text, unit.start, unit.end, tokenizer, max_tokens):
        yield _Unit(start, end, tokens, unit.heading_path, unit.is_heading)


def split_at_tokens(
    text: str, start: int, end: int, tokenizer: Tokenizer, max_tokens: int
) -> Iterator[tuple[int, int, int]]:
    """Slices of `text[start:end]` of at most `max_tokens` tokens each, as the tokenizer counts the slice alone."""
    while start < end:
        tokens = tokenizer.count(text[start:end])
        if tokens <= max_tokens:
            yield start, end, tokens
            return
        offsets = tokenizer.offsets(text[start:end])
        wanted = max_tokens
        while True:
            stop = start + _boundary(text[start:end], offsets, wanted)
            stripped = start + len(text[start:stop].rstrip())
            tokens = tokenizer.count(text[start:stripped])
            # A cut inside a word can make more tokens of its halves; then it is made earlier.
            if tokens <= max_tokens or wanted == 1:
                break
            wanted = max(1, wanted // 2)
        if tokens:
            yield start, stripped, tokens
        start = stop + len(text[stop:end]) - len(text[stop:end].lstrip())


def _boundary(text: str, offsets: Sequence[tuple[int, int]], wanted: int) -> int:
    """Where to cut after at most `wanted` tokens: the last word's begin in the second half, else a token's."""
    for index in range(wanted, wanted // 2, -1):
        position = offsets[index][0]
        if position > 0 and text[position - 1].isspace():
            return position
    return max(1, offsets[wanted][0])


def _sections(units: Sequence[_Unit], rules: ChunkRules) -> Iterator[list[_Unit]]:
    """Units under one heading; a short section goes along with the next."""
    held: list[_Unit] = []
    for _, group in groupby(units, key=lambda unit: unit.heading_path):
        if sum(unit.tokens for unit in held) >= rules.min_section_tokens:
            yield held
            held = []
        held.extend(group)
    if held:
        yield held


def _pack(section: Sequence[_Unit], rules: ChunkRules) -> Iterator[list[_Unit]]:
    """Runs of about equal length, as few as the bound allows, each repeating the end of the one before."""
    total = sum(unit.tokens for unit in section)
    count = -(-total // rules.max_tokens)
    target = -(-total // max(1, count))
    run: list[_Unit] = []
    filled = fresh = 0
    for unit in section:
        full = filled + unit.tokens > rules.max_tokens
        if fresh and (full or (filled >= target and not run[-1].is_heading)):
            yield run
            run = _tail(run, rules, room=rules.max_tokens - unit.tokens)
            filled, fresh = sum(one.tokens for one in run), 0
        run.append(unit)
        filled += unit.tokens
        fresh += 1
    if fresh:
        yield run


def _tail(run: Sequence[_Unit], rules: ChunkRules, *, room: int) -> list[_Unit]:
    """The last units of a run that fit into the overlap, never the whole run."""
    kept: list[_Unit] = []
    left = min(rules.overlap_tokens, room)
    for unit in reversed(run[1:]):
        left -= unit.tokens
        if left < 0:
            break
        kept.insert(0, unit)
    return kept


def _settle(text: str, run: Sequence[_Unit], tokenizer: Tokenizer, max_tokens: int) -> Iterator[Piece]:
    """The run as one piece, or cut again in the rare case that the slice has more tokens than its units."""
    path = _common([unit.heading_path for unit in run])
    for start, end, tokens in split_at_tokens(text, run[0].start, run[-1].end, tokenizer, max_tokens):
        yield Piece(start, end, tokens, path)


def _common(paths: Sequence[tuple[str, ...]]) -> tuple[str, ...]:
    shared = []
    for names in zip(*paths, strict=False):
        if len(set(names)) > 1:
            break
        shared.append(names[0])
    return tuple(shared)
