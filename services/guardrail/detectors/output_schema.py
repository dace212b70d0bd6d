"""Finds answers that are not of the form that a policy wants. Pure; one of `catalogue.py`'s detectors."""

import json
from collections.abc import Iterator
from typing import Any

from pydantic import BaseModel, ConfigDict, field_validator

from servicekit.domain.output_schema import read_output_schema
from servicekit.domain.verdict import Finding, Surface
from servicekit.errors import InvalidRequest
from services.guardrail.detectors.detector import Subject

_ANY_JSON = "{}"


class OutputSchemaOptions(BaseModel):
    """The form: any JSON, or a JSON schema of draft 2020-12; neither: any text."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    must_be_json: bool = False
    json_schema: dict[str, Any] | None = None

    @field_validator("json_schema")
    @classmethod
    def _readable(cls, schema: dict[str, Any] | None) -> dict[str, Any] | None:
        """A schema that cannot be followed is refused with the policy, not with every answer."""
        if schema is not None:
            try:
                read_output_schema(json.dumps(schema), field="json_schema")
            except InvalidRequest as error:
                raise ValueError(error.message) from error
            except (TypeError, ValueError, RecursionError) as error:
                raise ValueError(f"json_schema must be made of what JSON has: {error}") from error
        return schema

    @property
    def schema_text(self) -> str | None:
        """What answers must satisfy; None: nothing."""
        if self.json_schema is not None:
            return json.dumps(self.json_schema)
        return _ANY_JSON if self.must_be_json else None


class OutputSchemaDetector:
    """Judges whole answers alone: a piece of one has no form."""

    id = "output_schema"
    version = "1"
    surfaces = frozenset({Surface.OUTPUT})
    redacts = False
    options_model = OutputSchemaOptions

    def find(self, subject: Subject) -> Iterator[Finding]:
        """One finding at score 1 that names the part of the schema, and nothing of the answer."""
        text = subject.options.schema_text if isinstance(subject.options, OutputSchemaOptions) else None
        if text is None or not subject.whole:
            return
        violation = read_output_schema(text).violation(subject.normalized.original)
        if violation is not None:
            rule = "output_schema.no_json" if text == _ANY_JSON else "output_schema.violated"
            yield Finding(rule, 1.0, message=f"The answer is not as the policy wants it: {violation}.")
