"""Structured logs: events with fields, JSON unless a person is watching. Configured once by the runtime.

Every line made while a request runs carries its request id, tenant and trace id.
"""

import json
import logging
import sys
from collections.abc import MutableMapping
from typing import Any, Literal, TextIO

import structlog

from servicekit.telemetry.correlation import current_correlation
from servicekit.telemetry.tracing import current_trace_id

_ENCODER = json.JSONEncoder(ensure_ascii=False, separators=(",", ":"), default=str)
LogFormat = Literal["auto", "json", "console"]
_NOISY = ("aiokafka", "faststream", "httpx", "httpcore", "grpc", "uvicorn.error", "asyncio")


def configure_logging(
    *, service: str, level: str = "info", log_format: LogFormat = "auto", stream: TextIO | None = None
) -> None:
    """Send structlog's and the standard library's records to `stream` (standard error) in one format."""
    out = stream or sys.stderr
    threshold = logging.getLevelNamesMapping()[level.upper()]
    as_json = log_format == "json" or (log_format == "auto" and not out.isatty())
    shared: list[structlog.typing.Processor] = [
        structlog.processors.add_log_level,
        structlog.processors.TimeStamper(fmt="iso", utc=True),
        _Context(service),
    ]
    renderers: list[structlog.typing.Processor] = (
        [structlog.processors.format_exc_info, structlog.processors.JSONRenderer(serializer=_dump)]
        if as_json
        # Plain tracebacks: a pretty one shows local variables, and those hold what was asked.
        else [structlog.dev.ConsoleRenderer(colors=out.isatty(), exception_formatter=structlog.dev.plain_traceback)]
    )
    structlog.configure(
        processors=[*shared, *renderers],
        wrapper_class=structlog.make_filtering_bound_logger(threshold),
        logger_factory=structlog.WriteLoggerFactory(out),
        cache_logger_on_first_use=True,
    )
    _route_standard_logging(out, threshold, shared, renderers)


def _route_standard_logging(
    out: TextIO,
    threshold: int,
    shared: list[structlog.typing.Processor],
    renderers: list[structlog.typing.Processor],
) -> None:
    handler = logging.StreamHandler(out)
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            foreign_pre_chain=[structlog.stdlib.add_logger_name, *shared],
            processors=[structlog.stdlib.ProcessorFormatter.remove_processors_meta, *renderers],
        )
    )
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(threshold)
    for name in _NOISY:
        logging.getLogger(name).setLevel(max(threshold, logging.WARNING))


class _Context:
    """Adds service, request id, tenant and trace id to every record that has none."""

    def __init__(self, service: str) -> None:
        self._service = service

    def __call__(self, _logger: Any, _method: str, record: MutableMapping[str, Any]) -> MutableMapping[str, Any]:
        record.setdefault("service", self._service)
        correlation = current_correlation()
        if correlation is not None:
            record.setdefault("request_id", correlation.request_id)
            if correlation.tenant:
                record.setdefault("tenant", correlation.tenant)
        trace_id = current_trace_id()
        if trace_id:
            record.setdefault("trace_id", trace_id)
        return record


def _dump(record: MutableMapping[str, Any], **_options: Any) -> str:
    return _ENCODER.encode(record)
