"""Prompt templates: read from versioned files, checked at start, rendered into messages.

Used by `bootstrap.py` (reading) and `packing.py` (rendering). Jinja2 in its sandbox; an unknown variable is an error.
"""

import hashlib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path
from typing import Any

import jinja2
import yaml
from jinja2.meta import find_undeclared_variables
from jinja2.sandbox import ImmutableSandboxedEnvironment

from servicekit.domain.prompt import ContextChunk, Message, PromptRef, Role
from servicekit.errors import InvalidRequest, NotFound

VARIABLES = frozenset({"question", "chunks"})
_FIELDS = frozenset({"id", "version", "system", "user"})
_ENVIRONMENT = ImmutableSandboxedEnvironment(
    undefined=jinja2.StrictUndefined, trim_blocks=True, lstrip_blocks=True, autoescape=False
)


@dataclass(frozen=True)
class PromptTemplate:
    """One template; `ref.hash` is the SHA-256 of its file."""

    ref: PromptRef
    system: jinja2.Template
    user: jinja2.Template

    def messages(
        self, question: str, chunks: Sequence[ContextChunk], history: Sequence[Message]
    ) -> tuple[Message, ...]:
        """Instructions with the chunks, then the history, then the question; an empty system message is left out."""
        variables = {
            "question": question,
            "chunks": [
                {"number": c.number, "title": c.scored.chunk.title, "text": c.scored.chunk.text} for c in chunks
            ],
        }
        system = self.system.render(variables).strip()
        opening = (Message(Role.SYSTEM, system),) if system else ()
        return (*opening, *history, Message(Role.USER, self.user.render(variables)))


class PromptLibrary:
    """The templates by id."""

    def __init__(self, templates: Iterable[PromptTemplate]) -> None:
        self._templates = {template.ref.prompt_id: template for template in templates}

    def get(self, prompt_id: str) -> PromptTemplate:
        """The template.

        Raises:
            NotFound: there is none of this id; names those there are.
        """
        template = self._templates.get(prompt_id)
        if template is None:
            known = ", ".join(sorted(self._templates))
            raise NotFound(f"no prompt {prompt_id!r}; known: {known}", reason="PROMPT_NOT_FOUND")
        return template


def load_prompts(folder: Path | None) -> PromptLibrary:
    """The packaged templates, and those of the folder, which may replace them.

    Raises:
        InvalidRequest: a file that cannot be followed; names file and line.
    """
    packaged = files("services.generator").joinpath("prompts")
    sources = {entry.name: entry.read_bytes() for entry in packaged.iterdir() if entry.name.endswith(".yaml")}
    templates = [parse_template(source, file=name) for name, source in sorted(sources.items())]
    if folder is not None:
        if not folder.is_dir():
            raise _invalid(str(folder), "is no folder")
        templates += [parse_template(path.read_bytes(), file=str(path)) for path in sorted(folder.glob("*.yaml"))]
    return PromptLibrary(templates)


def parse_template(source: bytes, *, file: str) -> PromptTemplate:
    """Read one file, and render it once with a sample so that a bad template fails at start."""
    try:
        content = yaml.safe_load(source)
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise _invalid(file, f"is no YAML: {error}") from error
    fields = _fields(content, file=file)
    ref = PromptRef(fields["id"], fields["version"], hashlib.sha256(source).hexdigest())
    template = PromptTemplate(ref, _compile(fields, "system", file=file), _compile(fields, "user", file=file))
    try:
        template.messages("sample", (), ())
    except jinja2.TemplateError as error:
        raise _invalid(file, f"cannot be rendered: {error}") from error
    return template


def _fields(content: Any, *, file: str) -> Mapping[str, str]:
    if not isinstance(content, dict) or content.keys() != _FIELDS:
        raise _invalid(file, f"needs exactly the fields {', '.join(sorted(_FIELDS))}")
    for name, value in content.items():
        if not isinstance(value, str) or (name != "system" and not value.strip()):
            raise _invalid(file, f"{name} must be a text, got {value!r}")
    return content


def _compile(fields: Mapping[str, str], name: str, *, file: str) -> jinja2.Template:
    try:
        unknown = find_undeclared_variables(_ENVIRONMENT.parse(fields[name])) - VARIABLES
        if unknown:
            valid = ", ".join(sorted(VARIABLES))
            raise _invalid(file, f"{name} uses {min(unknown)!r}; known variables: {valid}")
        return _ENVIRONMENT.from_string(fields[name])
    except jinja2.TemplateSyntaxError as error:
        raise _invalid(file, f"{name}, line {error.lineno}: {error.message}") from error


def _invalid(file: str, fault: str) -> InvalidRequest:
    return InvalidRequest(f"{file}: {fault}", field="prompts_dir", reason="PROMPT_INVALID")
