"""Realistic interaction events for benchmarks, made fast enough to fill a topic with millions.

Used by `sink.py` and its like. An event is one of some hundred messages filled as the gateway fills them, with what
differs from event to event (request id and times) appended as further fields of the same protobuf message.
"""

import random
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from binnacle.events.v1.interaction_completed_pb2 import InteractionCompleted
from servicekit.domain.envelope import Envelope
from servicekit.events.codec import Headers, encode_headers
from servicekit.events.topics import INTERACTION_COMPLETED, TOPICS

PARTITIONS = TOPICS[INTERACTION_COMPLETED].partitions
_BASES = 256
_TENANTS = 7
_WORDS = ("function", "returns", "the", "value", "when", "called", "with", "an", "argument", "list", "module", "raise")
_STAGES = ("check_input", "search_chunks", "check_retrieved", "generate", "check_output", "record")
_MICROSECOND_NS = 1000
_SECOND_US = 1_000_000


@dataclass(frozen=True, slots=True)
class BenchEvent:
    """One record as a producer would send it, to the partition in which its sequence counts."""

    partition: int
    key: bytes
    value: bytes
    headers: Headers


def interactions(count: int, *, start_us: int, step_us: int, first: int = 0, seed: int = 7) -> Iterator[BenchEvent]:
    """`count` different events of about 0.6 to 1.2 KB, each `step_us` after the one before, from `start_us` on.

    `first` is the number of the first one, so that a topic can be filled in several goes.
    """
    draw = random.Random(seed)
    bases = [_base(draw) for _ in range(_BASES)]
    draw.seed(seed + first)
    alike = [_alike_headers(f"tenant-{number}") for number in range(_TENANTS)]
    for number in range(first, first + count):
        end_us = start_us + number * step_us
        request_id = _request_id(end_us, draw.getrandbits(160))
        value = b"".join((
            bases[number % _BASES],
            b"\x0a", _varint(len(request_id)), request_id,  # request_id
            _time(b"\x12", end_us - 800_000),  # accept_time
            _time(b"\x1a", end_us),  # complete_time
        ))  # fmt: skip
        own = (("ce_id", b"evt-" + request_id), ("ce_sequence", b"%d" % (number // PARTITIONS + 1)))
        yield BenchEvent(number % PARTITIONS, request_id, value, alike[number % _TENANTS] + own)


def _alike_headers(tenant: str) -> Headers:
    """What all events of a tenant have in common."""
    envelope = Envelope(
        id="x",
        source="gateway",
        type="binnacle.events.v1.InteractionCompleted",
        tenant=tenant,
        producer="gateway-bench",
        sequence=1,
        traceparent="00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01",
    )
    return tuple(one for one in encode_headers(envelope) if one[0] not in {"ce_id", "ce_sequence"})


def _request_id(time_us: int, drawn: int) -> bytes:
    """As the gateway's: a UUID that grows with time, and a tag."""
    milliseconds, noise = time_us // 1000, f"{drawn:040x}"
    grown = f"{milliseconds >> 16:08x}-{milliseconds & 0xFFFF:04x}-7{noise[:3]}-8{noise[3:6]}-{noise[6:18]}"
    return f"{grown}-{noise[18:34]}".encode()


def _base(draw: random.Random) -> bytes:
    """A message without request id and times."""
    model = draw.choice(("default", "large"))
    message = InteractionCompleted(
        tenant_id="tenant",
        project=draw.choice(("shop", "docs", "support")),
        end_user_id=f"user-{draw.randrange(5000)}",
        outcome=draw.choices((1, 2, 3, 4), (90, 4, 4, 2))[0],
        query=_text(draw, draw.randrange(5, 18)),
        answer=_text(draw, draw.randrange(10, 40)),
        release="2026-11-01",
        route=draw.choice(("default", "docs")),
        variant_probability=1.0,
        policy_version="default-3",
        model=model,
        embedding_model="all-MiniLM-L6-v2",
        corpus_version=draw.randrange(9000),
        price_version="2026-10",
        cost_microusd=draw.randrange(50, 4000),
        deadline_granted_us=30_000_000,
        duration_us=draw.randrange(20_000, 4_000_000),
        time_to_first_token_us=draw.randrange(10_000, 900_000),
        finish_reason=1,
        cache_status=1,
        retention_class="default",
        channel="grpc-stream",
    )
    message.prompt.prompt_id, message.prompt.version = "grounded_answer", draw.choice(("3", "4"))
    message.prompt.hash = f"{draw.getrandbits(64):016x}"
    message.usage.input_tokens, message.usage.output_tokens = draw.randrange(300, 4000), draw.randrange(20, 400)
    message.sampling.temperature, message.sampling.max_output_tokens = 0.2, 512
    _add_attempt(message)
    for rank in range(1, draw.randrange(2, 4)):
        _add_chunk(message, draw, rank)
    for number, stage in enumerate(_STAGES):
        message.timings.add(stage=stage, start_us=20_000 * number, duration_us=draw.randrange(500, 90_000))
    return message.SerializeToString()


def _add_attempt(message: InteractionCompleted) -> None:
    attempt = message.attempts.add(
        number=1, model_alias=message.model, model="llama-3.3-70b", revision="9a1f", engine="tgi-3"
    )
    attempt.usage.CopyFrom(message.usage)
    attempt.cost_microusd, attempt.duration_us = message.cost_microusd, message.duration_us


def _add_chunk(message: InteractionCompleted, draw: random.Random, rank: int) -> None:
    """A chunk that was used; the first one is cited."""
    chunk = message.chunks.add(
        chunk_id=f"{draw.getrandbits(64):016x}",
        document_id=f"doc-{draw.randrange(9000)}",
        revision=1,
        content_hash=f"{draw.getrandbits(256):064x}",
        rank=rank,
        score=draw.random(),
        used=True,
    )
    if rank == 1:
        citation = message.citations.add(
            marker="[1]",
            chunk_id=chunk.chunk_id,
            document_id=chunk.document_id,
            revision=1,
            content_hash=chunk.content_hash,
            title="The Python Language Reference",
        )
        citation.answer_span.end = 40


def _text(draw: random.Random, words: int) -> str:
    return " ".join(draw.choice(_WORDS) for _ in range(words))


def _time(tag: bytes, time_us: int) -> bytes:
    seconds, microseconds = divmod(time_us, _SECOND_US)
    body = b"\x08" + _varint(seconds) + b"\x10" + _varint(microseconds * _MICROSECOND_NS)
    return tag + _varint(len(body)) + body


def _varint(number: int) -> bytes:
    out = bytearray()
    while number > 0x7F:
        out.append(number & 0x7F | 0x80)
        number >>= 7
    out.append(number)
    return bytes(out)


def describe(events: Sequence[BenchEvent]) -> str:
    """Sizes, for the log of a run."""
    sizes = sorted(len(event.value) for event in events)
    return f"{sizes[0]}..{sizes[-1]} bytes, median {sizes[len(sizes) // 2]}"
