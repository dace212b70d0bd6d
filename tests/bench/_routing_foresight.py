"""When a prompt would have its first token at a contract server: its schedule played on from what is there now.

Pure; what the routing benchmark's oracle knows. Follows `servicekit.testing.tgi_server.scheduling.Lockstep`.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from servicekit.testing.tgi_server.dials import Dials
from servicekit.testing.tgi_server.prefix_cache import PrefixCache


@dataclass(frozen=True, slots=True)
class Queued:
    """One that waits: its input, how much of that is new to the cache, and its output."""

    input_tokens: int
    new_tokens: int
    output_tokens: int


def first_token_in_s(
    dials: Dials, *, busy_s: float, batch_left: Sequence[int], queue: Sequence[Queued], mine: Queued
) -> float:
    """Seconds; `busy_s` is what remains of the operation under way, `batch_left` the tokens that each still gets."""
    at_s, batch, waiting = busy_s, list(batch_left), [*queue, mine]
    while True:
        group = _admitted(dials, waiting, room=dials.max_batch_size - len(batch))
        at_s += dials.prefill_s(sum(one.new_tokens for one in group))
        del waiting[: len(group)]
        if not waiting:
            return at_s
        batch = [left for left in batch if left > 0] + [one.output_tokens - 1 for one in group]
        if group and len(batch) < dials.max_batch_size:
            continue
        steps = max(1, min(batch))
        at_s += steps * dials.decode_s(len(batch))
        batch = [left - steps for left in batch if left > steps]


def new_tokens(texts: Sequence[str], cache: PrefixCache, block_tokens: int) -> int:
    """Tokens of a prompt that the cache lacks, without reading it in."""
    known, before, found = cache._blocks, hash(""), 0
    for start in range(0, len(texts) - block_tokens + 1, block_tokens):
        before = hash((before, *texts[start : start + block_tokens]))
        if before not in known:
            break
        found += block_tokens
    return len(texts) - min(found, len(texts) - 1)


def _admitted(dials: Dials, waiting: Sequence[Queued], *, room: int) -> list[Queued]:
    group: list[Queued] = []
    computed = 0
    for one in waiting[: max(0, room)]:
        if group and computed + one.input_tokens > dials.max_batch_prefill_tokens > 0:
            break
        group.append(one)
        computed += one.new_tokens
    return group
