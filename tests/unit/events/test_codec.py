"""The codec: envelopes survive the trip through headers, and what is no envelope is rejected, never a crash."""

from datetime import UTC, datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from binnacle.events.v1.document_indexed_pb2 import DocumentIndexed
from binnacle.events.v1.feedback_recorded_pb2 import FeedbackRecorded
from servicekit.domain.envelope import Envelope, ReceivedEvent
from servicekit.events.codec import MAX_HEADER_BYTES, MAX_SEQUENCE, decode, decode_headers, encode_headers
from servicekit.ports.event_bus import RejectedEvent

_TRACEPARENT = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"
_texts = st.text(min_size=1, max_size=200).filter(str.isprintable)
_envelopes = st.builds(
    Envelope,
    id=_texts,
    source=_texts,
    type=_texts,
    tenant=_texts,
    producer=_texts,
    sequence=st.integers(1, MAX_SEQUENCE),
    traceparent=st.sampled_from(["", _TRACEPARENT]),
)


def _headers(**changes: bytes | None) -> list[tuple[str, bytes | None]]:
    values: dict[str, bytes | None] = {
        "ce_specversion": b"1.0",
        "ce_id": b"id",
        "ce_source": b"gateway",
        "ce_type": b"binnacle.events.v1.FeedbackRecorded",
        "ce_tenant": b"acme",
        "ce_producer": b"p",
        "ce_sequence": b"7",
        **changes,
    }
    return [(name, value) for name, value in values.items() if value != b"(absent)"]


@given(_envelopes)
def test_envelope_survives_the_headers(envelope: Envelope) -> None:
    """Decoding what was encoded gives the same envelope."""
    assert decode_headers(encode_headers(envelope)) == envelope


@given(
    st.lists(
        st.tuples(
            st.one_of(st.sampled_from([name for name, _ in _headers()]), st.text(max_size=20)),
            st.one_of(st.none(), st.binary(max_size=40), st.sampled_from([b"1.0", b"1", b"id"])),
        ),
        max_size=12,
    )
)
def test_any_headers_decode_or_are_rejected(headers: list[tuple[str, bytes | None]]) -> None:
    """Whatever the headers, the outcome is an envelope or a rejection at stage envelope."""
    stage = "accepted"
    try:
        envelope = decode_headers(headers)
    except RejectedEvent as rejection:
        stage = rejection.stage
    else:
        assert envelope.id
        assert 0 <= envelope.sequence <= MAX_SEQUENCE
    assert stage in ("accepted", "envelope")


@pytest.mark.parametrize(
    ("changes", "problem"),
    [
        ({"ce_id": b"(absent)"}, "ce_id"),
        ({"ce_tenant": b""}, "ce_tenant"),
        ({"ce_source": None}, "ce_source"),
        ({"ce_specversion": b"0.3"}, "ce_specversion"),
        ({"ce_id": b"\xff\xfe"}, "not UTF-8"),
        ({"ce_id": b"a\x00b"}, "unprintable"),
        ({"ce_id": b"x" * (MAX_HEADER_BYTES + 1)}, "at most"),
        ({"ce_sequence": b"0"}, "ce_sequence"),
        ({"ce_sequence": b"-1"}, "ce_sequence"),
        ({"ce_sequence": b"1e9"}, "ce_sequence"),
        ({"ce_sequence": "٣".encode()}, "ce_sequence"),
        ({"ce_sequence": b"9" * 19}, "ce_sequence"),
        ({"ce_sequence": b"9" * 900}, "ce_sequence"),
        ({"ce_sequence": b"(absent)"}, "ce_sequence"),
        ({"ce_producer": b"(absent)"}, "ce_producer"),
    ],
)
def test_hostile_header_is_rejected_by_name(changes: dict[str, bytes | None], problem: str) -> None:
    """A missing, empty, undecodable, oversized or absurd header is rejected with its name and the reason."""
    with pytest.raises(RejectedEvent, match=problem) as rejection:
        decode_headers(_headers(**changes))
    assert rejection.value.stage == "envelope"


def test_repeated_header_is_rejected() -> None:
    """A header that stands twice is ambiguous: no consumer may choose."""
    with pytest.raises(RejectedEvent, match="more than once"):
        decode_headers([*_headers(), ("ce_tenant", b"other")])


def test_upstream_event_without_sequence_is_accepted() -> None:
    """An upstream system need not keep sequences; its event has none."""
    envelope = decode_headers(_headers(ce_producer=b"(absent)", ce_sequence=b"(absent)"))
    assert (envelope.producer, envelope.sequence) == ("", 0)


def test_invalid_traceparent_is_ignored() -> None:
    """A broken trace context costs the trace, not the event."""
    assert decode_headers(_headers(traceparent=b"00-zz")).traceparent == ""
    assert decode_headers(_headers(traceparent=_TRACEPARENT.encode())).traceparent == _TRACEPARENT


def _event(payload: bytes, message: str = "binnacle.events.v1.FeedbackRecorded") -> ReceivedEvent:
    envelope = Envelope(id="e", source="s", type=message, tenant="acme", producer="p", sequence=1)
    return ReceivedEvent(envelope, "t", 0, 0, "k", payload, datetime(2026, 1, 1, tzinfo=UTC))


@given(st.binary(max_size=200))
def test_any_payload_decodes_or_is_rejected(payload: bytes) -> None:
    """Whatever the bytes, the outcome is a message or a rejection at stage decode."""
    stage = "accepted"
    try:
        decode(_event(payload), FeedbackRecorded)
    except RejectedEvent as rejection:
        stage = rejection.stage
    assert stage in ("accepted", "decode")


def test_event_of_another_type_is_rejected() -> None:
    """A payload is not read as a message that its header does not name."""
    with pytest.raises(RejectedEvent, match="DocumentIndexed") as rejection:
        decode(_event(b""), DocumentIndexed)
    assert rejection.value.stage == "decode"
