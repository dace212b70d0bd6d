"""Arithmetic on sets of sequences kept as ranges. Pure; used by `ledger.py` and `completeness.py`.

A range is `(first, last)`, both included. Results are in order, do not overlap and do not touch.
"""

from collections.abc import Iterable, Sequence

Range = tuple[int, int]


def merged(ranges: Iterable[Range]) -> Sequence[Range]:
    """The union of ranges in any order."""
    out: list[Range] = []
    for first, last in sorted(ranges):
        if out and first <= out[-1][1] + 1:
            out[-1] = out[-1][0], max(out[-1][1], last)
        else:
            out.append((first, last))
    return tuple(out)


def of_numbers(numbers: Iterable[int]) -> Sequence[Range]:
    """Single numbers as ranges."""
    return merged((number, number) for number in numbers)


def without(ranges: Iterable[Range], removed: Iterable[Range]) -> Sequence[Range]:
    """What lies in `ranges` and not in `removed`."""
    out: list[Range] = []
    taken = merged(removed)
    position = 0
    for first, last in merged(ranges):
        while position < len(taken) and taken[position][1] < first:
            position += 1
        start, ahead = first, position
        while ahead < len(taken) and taken[ahead][0] <= last:
            if start < taken[ahead][0]:
                out.append((start, taken[ahead][0] - 1))
            start = taken[ahead][1] + 1
            ahead += 1
        if start <= last:
            out.append((start, last))
    return tuple(out)


def common(ranges: Iterable[Range], others: Iterable[Range]) -> Sequence[Range]:
    """What lies in both."""
    kept = merged(ranges)
    return without(kept, without(kept, others))


def length(ranges: Iterable[Range]) -> int:
    """How many numbers lie in at least one of the ranges."""
    return sum(last - first + 1 for first, last in merged(ranges))
