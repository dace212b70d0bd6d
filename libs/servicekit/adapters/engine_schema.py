"""Reads a request's output schema, and says what engines have no way to do.

Pure; used by every engine adapter.
"""

import json
from typing import Any

from servicekit.errors import InvalidRequest


def read_schema(text: str) -> dict[str, Any]:
    """The JSON schema that an answer must satisfy.

    Raises:
        InvalidRequest: it is no JSON object.
    """
    try:
        schema = json.loads(text)
    except ValueError as error:
        raise InvalidRequest(f"output_schema must be JSON: {error}", field="output_schema") from error
    if not isinstance(schema, dict):
        raise InvalidRequest(f"output_schema must be a JSON object, got {type(schema).__name__}", field="output_schema")
    return schema


def unsupported(field: str, what: str) -> InvalidRequest:
    """A setting that the engine cannot honour, refused rather than dropped."""
    return InvalidRequest(
        f"this model's engine has no {what}; leave {field} out", field=field, reason="UNSUPPORTED_SETTING"
    )
