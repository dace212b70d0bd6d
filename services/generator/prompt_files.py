"""Reads a prompt's file and checks all of it, so that a bad prompt fails at start: by file, line and field.

Called by `templates.py`. The format is that of `prompts/README.md`.
"""

import hashlib
import json
import traceback
from collections.abc import Mapping, Sequence
from typing import Annotated, Any

import jinja2
import yaml
from jinja2.meta import find_undeclared_variables
from jinja2.sandbox import ImmutableSandboxedEnvironment
from pydantic import BaseModel, ConfigDict, Field, StringConstraints, ValidationError

from servicekit.domain.chunk import Chunk, ScoredChunk
from servicekit.domain.prompt import ContextChunk, PromptRef
from servicekit.errors import InvalidRequest
from services.generator.prompt_template import VARIABLES, Example, PromptTemplate
from services.generator.yaml_lines import line_of

_ENVIRONMENT = ImmutableSandboxedEnvironment(
    undefined=jinja2.StrictUndefined, trim_blocks=True, lstrip_blocks=True, autoescape=False
)
# What a template can fail by while it is rendered.
_FAILURES = (jinja2.TemplateError, ArithmeticError, LookupError, TypeError, ValueError, AttributeError, RecursionError)
_SAMPLE_QUESTION = "When does the harbour open?"
_SAMPLE_CHUNKS = tuple(
    ContextChunk(number, ScoredChunk(Chunk(f"c{number}", "d", 1, "", "At six.", title=title), number, 1.0))
    for number, title in enumerate(("Harbour", ""), start=1)
)

Name = Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,62}$")]
Text = Annotated[str, StringConstraints(min_length=1, max_length=32_768, pattern=r"\S")]


class _ExampleFields(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)

    question: Text
    answer: Text


class _FewShotFields(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)

    id: Name
    examples: list[_ExampleFields] = Field(min_length=1, max_length=32)


class _Fields(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)

    id: Name
    version: Name
    system: Annotated[str, StringConstraints(max_length=65_536)]
    user: Text
    few_shot: _FewShotFields | None = None

    def digest(self) -> str:
        """SHA-256 of all that reaches the model: comments, and how the YAML is laid out, do not."""
        sent = {"system": self.system, "user": self.user, "few_shot": None}
        if self.few_shot is not None:
            sent["few_shot"] = self.few_shot.model_dump()["examples"]
        return hashlib.sha256(json.dumps(sent, sort_keys=True, separators=(",", ":")).encode()).hexdigest()


def parse_template(source: bytes, *, file: str, canary: str = "") -> PromptTemplate:
    """Read one file, and render it with samples so that nothing is left to fail at the first question.

    Raises:
        InvalidRequest: it cannot be followed; names file, line and field.
    """
    root = _composed(source, file=file)
    fields = _checked(root, source, file=file)
    few_shot = fields.few_shot
    ref = PromptRef(fields.id, fields.version, fields.digest(), few_shot.id if few_shot else "")
    compiled = {name: _compiled(name, getattr(fields, name), root, file=file) for name in ("system", "user")}
    examples = tuple(Example(one.question, one.answer) for one in few_shot.examples) if few_shot else ()
    template = PromptTemplate(ref, compiled["system"], compiled["user"], examples, canary)
    _try(template, root, file=file)
    return template


def invalid(file: str, fault: str, *, line: int | None = None) -> InvalidRequest:
    """A fault, told by its place."""
    place = file if line is None else f"{file}, line {line}"
    return InvalidRequest(f"{place}: {fault}", field="prompts_dir", reason="PROMPT_INVALID")


def _composed(source: bytes, *, file: str) -> yaml.MappingNode:
    try:
        root = yaml.compose(source, Loader=yaml.SafeLoader)
    except yaml.MarkedYAMLError as error:
        line = error.problem_mark.line + 1 if error.problem_mark else None
        raise invalid(file, f"is no YAML: {error.problem or error.context}", line=line) from error
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise invalid(file, f"is no YAML: {error}") from error
    if not isinstance(root, yaml.MappingNode):
        raise invalid(file, "needs the fields id, version, system and user")
    seen: set[str] = set()
    for key, _ in root.value:
        if key.value in seen:
            raise invalid(file, f"{key.value}: is there twice", line=key.start_mark.line + 1)
        seen.add(key.value)
    return root


def _checked(root: yaml.MappingNode, source: bytes, *, file: str) -> _Fields:
    try:
        content = yaml.safe_load(source)
    except yaml.YAMLError as error:
        raise invalid(file, f"is no YAML: {error}") from error
    try:
        return _Fields.model_validate(content)
    except ValidationError as error:
        fault = error.errors(include_url=False, include_context=False)[0]
        place = fault["loc"]
        given = "" if fault["type"] in {"missing", "extra_forbidden"} else f", got {_short(fault['input'])}"
        line = line_of(source, place) or root.start_mark.line + 1
        raise invalid(file, f"{_path(place)}: {_message(fault)}{given}", line=line) from error


def _message(fault: Mapping[str, Any]) -> str:
    if fault["type"] == "extra_forbidden":
        return "is no field of a prompt; there are id, version, system, user and few_shot (id, examples)"
    if fault["type"] == "missing":
        return "is missing"
    if fault["type"] == "string_type":
        return "must be a text (in quotes where it looks like a number)"
    return str(fault["msg"])


def _path(place: Sequence[str | int]) -> str:
    return "".join(f"[{part}]" if isinstance(part, int) else f".{part}" for part in place).removeprefix(".")


def _short(value: object) -> str:
    shown = repr(value)
    return shown if len(shown) <= 80 else f"{shown[:80]}…"  # noqa: PLR2004  # as much as a line shows


def _compiled(name: str, text: str, root: yaml.MappingNode, *, file: str) -> jinja2.Template:
    try:
        unknown = find_undeclared_variables(_ENVIRONMENT.parse(text)) - set(VARIABLES)
        if unknown:
            fault = f"{name}: uses {min(unknown)!r}; known variables: {', '.join(VARIABLES)}"
            raise invalid(file, fault, line=_line(root, name, _line_with(text, min(unknown))))
        template = _ENVIRONMENT.from_string(text)
    except jinja2.TemplateSyntaxError as error:
        raise invalid(file, f"{name}: {error.message}", line=_line(root, name, error.lineno)) from error
    template.name = name
    return template


def _try(template: PromptTemplate, root: yaml.MappingNode, *, file: str) -> None:
    """Render with chunks and without: either branch may be wrong."""
    for chunks in (_SAMPLE_CHUNKS, ()):
        for name, part in (("system", template.system), ("user", template.user)):
            try:
                PromptTemplate(template.ref, part, part).messages(_SAMPLE_QUESTION, chunks, ())
            except _FAILURES as error:
                lines = [frame.lineno for frame in traceback.extract_tb(error.__traceback__) if _is_template(frame)]
                line = _line(root, name, (lines[-1] if lines else None) or 1)
                raise invalid(file, f"{name}: cannot be rendered: {error}", line=line) from error
        rendered = template.messages(_SAMPLE_QUESTION, chunks, ())
        if not any(_SAMPLE_QUESTION in message.content for message in rendered):
            raise invalid(file, "user: does not hold {{ question }}", line=_line(root, "user", 1))


def _is_template(frame: traceback.FrameSummary) -> bool:
    return frame.filename == "<template>"


def _line_with(text: str, name: str) -> int:
    """The line, from 1, that holds a name first."""
    return text[: text.find(name)].count("\n") + 1


def _line(root: yaml.MappingNode, name: str, line: int) -> int:
    """The file's line of a line of a field's text: in a block (`|`) they run along, else the text's first is told."""
    node = next(value for key, value in root.value if key.value == name)
    begin: int = node.start_mark.line + 1
    return begin + line if getattr(node, "style", None) in {"|", ">"} else begin
