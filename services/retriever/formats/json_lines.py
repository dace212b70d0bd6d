"""Reads JSON lines: a value a line, each flattened to `name.name: value`. Pure; see `parsing.py`."""

import json
from collections.abc import Iterator, Sequence
from typing import Any

from servicekit.errors import InvalidRequest
from services.retriever.formats.parsing import ParsedDocument
from services.retriever.formats.records import write_records

MAX_DEPTH = 50
_MAX_NAME_CHARS = 200


def parse_json_lines(text: str) -> ParsedDocument:
    """A record for each line that is not blank.

    Raises:
        InvalidRequest: a line is no JSON, or nested too deeply.
    """
    return write_records(_records(text))


def _records(text: str) -> Iterator[Sequence[tuple[str, str]]]:
    # Only line feeds part values: other separators may stand inside a string.
    for number, line in enumerate(text.split("\n"), start=1):
        if not line.strip():
            continue
        try:
            value = json.loads(line)
        except (ValueError, RecursionError) as exc:
            problem = exc.msg if isinstance(exc, json.JSONDecodeError) else "too deep or too large a number"
            raise _refusal(number, f"is no JSON ({problem}): write one value a line", "MALFORMED_JSON") from exc
        yield list(_flatten(value, "", number, 0))


def _flatten(value: Any, name: str, number: int, depth: int) -> Iterator[tuple[str, str]]:
    if depth > MAX_DEPTH:
        raise _refusal(number, f"is nested deeper than {MAX_DEPTH}: flatten it", "MARKUP_TOO_DEEP")
    if isinstance(value, dict):
        for key, inner in value.items():
            path = f"{name}.{key}" if name else key
            yield from _flatten(inner, path[-_MAX_NAME_CHARS:], number, depth + 1)
    elif isinstance(value, list):
        scalars = [_scalar(one) for one in value if not isinstance(one, (dict, list))]
        if scalars:
            yield name, ", ".join(one for one in scalars if one)
        for inner in value:
            if isinstance(inner, (dict, list)):
                yield from _flatten(inner, name, number, depth + 1)
    else:
        yield name, _scalar(value)


def _scalar(value: Any) -> str:
    match value:
        case None:
            return ""
        case bool():
            return "true" if value else "false"
        case _:
            return str(value)


def _refusal(number: int, problem: str, reason: str) -> InvalidRequest:
    return InvalidRequest(f"document.content line {number} {problem}", field="document.content", reason=reason)
