"""Log lines: one JSON object each, with what ties them to a request; the standard library's records too."""

import io
import json
import logging
from collections.abc import Iterator
from typing import Any

import pytest
import structlog

from servicekit.telemetry.correlation import correlated
from servicekit.telemetry.logging import configure_logging
from servicekit.telemetry.tracing import current_trace_id, span


@pytest.fixture
def stream() -> Iterator[io.StringIO]:
    """Where lines go; the configuration is undone afterwards."""
    root = logging.getLogger()
    handlers, level = list(root.handlers), root.level
    yield io.StringIO()
    structlog.reset_defaults()
    root.handlers[:] = handlers
    root.setLevel(level)


def lines_of(stream: io.StringIO) -> list[dict[str, Any]]:
    """The lines as objects."""
    return [json.loads(line) for line in stream.getvalue().splitlines()]


def test_line_carries_what_ties_it_to_its_request(stream: io.StringIO) -> None:
    """Service, request id, tenant and trace id are added to every event."""
    configure_logging(service="retriever", stream=stream)
    log = structlog.get_logger()
    with correlated("req-1", tenant="acme"), span("work"):
        log.info("retrieval.completed", chunks=8)
        trace_id = current_trace_id()
    log.info("idle")
    first, second = lines_of(stream)
    expected = {"event": "retrieval.completed", "chunks": 8, "service": "retriever", "level": "info"}
    assert first.items() >= (expected | {"request_id": "req-1", "tenant": "acme", "trace_id": trace_id}).items()
    assert first["timestamp"].endswith("Z")
    assert not second.keys() & {"request_id", "tenant", "trace_id"}


def test_level_bounds_both_kinds_of_records(stream: io.StringIO) -> None:
    """Below the level nothing is written; libraries speak through the same format, noisy ones from warnings on."""
    configure_logging(service="retriever", level="info", stream=stream)
    structlog.get_logger().debug("unheard")
    logging.getLogger("some.library").info("heard %s", "there")
    logging.getLogger("aiokafka.consumer").info("unheard")
    logging.getLogger("aiokafka.consumer").warning("heard too")
    events = [(line["event"], line.get("logger")) for line in lines_of(stream)]
    assert events == [("heard there", "some.library"), ("heard too", "aiokafka.consumer")]


def test_exception_is_one_line(stream: io.StringIO) -> None:
    """A traceback stays inside its JSON line."""
    configure_logging(service="retriever", stream=stream)
    try:
        int("broken")
    except ValueError:
        structlog.get_logger().exception("work.failed")
    [line] = lines_of(stream)
    assert "ValueError: invalid literal" in line["exception"]


def test_console_is_for_people(stream: io.StringIO) -> None:
    """Asked for, the format is readable rather than JSON."""
    configure_logging(service="retriever", log_format="console", stream=stream)
    structlog.get_logger().info("hello", name="world")
    assert "hello" in stream.getvalue()
    assert not stream.getvalue().startswith("{")


def test_console_traceback_shows_no_variables(stream: io.StringIO) -> None:
    """A traceback for people names the error and the place, never what the variables there hold."""
    configure_logging(service="gateway", log_format="console", stream=stream)
    question = "my-address-is-ann"
    try:
        int(question[:0])
    except ValueError:
        structlog.get_logger().exception("work.failed")
    assert "ValueError" in stream.getvalue()
    assert question not in stream.getvalue()


def test_odd_values_are_written(stream: io.StringIO) -> None:
    """Whatever a field holds, the line is JSON."""
    configure_logging(service="retriever", stream=stream)
    structlog.get_logger().info("odd", value=object, path=b"\xff", text="ключ\n")
    [line] = lines_of(stream)
    assert line["text"] == "ключ\n"
