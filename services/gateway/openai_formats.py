"""OpenAI's `response_format` → the JSON schema that an answer must satisfy. Pure; used by `openai_convert.py`."""

import json
from typing import Any

from servicekit.errors import InvalidRequest

_FIELD = "response_format"
_ANY_OBJECT = '{"type": "object"}'
_TYPES = "text, json_object or json_schema"


def output_schema_of(given: Any) -> str:
    """The schema as JSON, empty for free text; `name`, `description` and `strict` change nothing.

    Raises:
        InvalidRequest: no format, or none that is known. What is wrong with a schema is told where it is read.
    """
    if given is None:
        return ""
    kind = given.get("type") if isinstance(given, dict) else None
    if kind == "text":
        return ""
    if kind == "json_object":
        return _ANY_OBJECT
    if kind != "json_schema":
        raise InvalidRequest(f"{_FIELD} must be an object whose type is {_TYPES}", field=_FIELD)
    named = given.get("json_schema")
    schema = named.get("schema") if isinstance(named, dict) else None
    if not isinstance(schema, dict):
        raise InvalidRequest(f"{_FIELD}.json_schema.schema must be a JSON schema, an object", field=_FIELD)
    return json.dumps(schema, ensure_ascii=False)
