"""Kafka URLs: servers, ports and options, or a refusal that says what is wrong."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from servicekit.adapters.kafka.address import DEFAULT_SESSION_S, KafkaAddress, parse_address
from servicekit.errors import InvalidRequest


@pytest.mark.parametrize(
    ("url", "expected"),
    [
        ("kafka://127.0.0.1:9092", KafkaAddress(("127.0.0.1:9092",))),
        ("kafka://a:1,b:2", KafkaAddress(("a:1", "b:2"))),
        ("kafka://broker", KafkaAddress(("broker:9092",))),
        ("kafka://a:1?instance=r-0", KafkaAddress(("a:1",), instance="r-0")),
        ("kafka://a:1?session_s=9.5", KafkaAddress(("a:1",), session_s=9.5)),
        (
            "kafka://a:1?spool_after_s=0.2&max_spool_bytes=2000000",
            KafkaAddress(("a:1",), spool_after_s=0.2, max_spool_bytes=2_000_000),
        ),
    ],
)
def test_url_is_parsed(url: str, expected: KafkaAddress) -> None:
    """Servers and options are taken from the URL, the rest has defaults."""
    assert parse_address(url) == expected
    assert KafkaAddress(("a:1",)).session_s == DEFAULT_SESSION_S


@pytest.mark.parametrize(
    ("url", "problem"),
    [
        ("kafka://", "must name a server"),
        ("kafka://a:b", "host:port"),
        ("kafka://:9092", "host:port"),
        ("kafka://a:1?colour=red", "colour"),
        ("kafka://a:1?session_s=0", "session_s"),
        ("kafka://a:1?session_s=soon", "session_s"),
        ("kafka://a:1?session_s=nan", "session_s"),
        ("kafka://a:1?spool_after_s=0", "spool_after_s"),
        ("kafka://a:1?max_spool_bytes=1000", "max_spool_bytes"),
    ],
)
def test_bad_url_is_refused(url: str, problem: str) -> None:
    """A URL that cannot work is refused with the reason and itself."""
    with pytest.raises(InvalidRequest, match=problem) as refusal:
        parse_address(url)
    assert url in refusal.value.message


@given(st.text(max_size=40))
def test_any_url_parses_or_is_refused(rest: str) -> None:
    """No URL raises anything but a refusal."""
    try:
        address = parse_address(f"kafka://{rest}")
    except InvalidRequest:
        return
    assert address.servers
