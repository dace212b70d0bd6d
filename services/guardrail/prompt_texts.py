"""Reads what system prompts say, for the detector of their leaks: the words between a template's variables.

Called by `detectors/catalogue.py` at start. The files are the generator's prompt templates (its `prompts/README.md`),
of which those packaged are read as data, so that a stack without settings guards what it says.
"""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path

import yaml

from servicekit.errors import InvalidRequest
from services.guardrail.linear import LinearPattern

_TEMPLATE_CODE = LinearPattern(r"(?s)\{\{.*?\}\}|\{%.*?%\}|\{#.*?#\}")
_SAID = LinearPattern(
    r"\b(?:say|says|answer|answers|reply|respond|write)\b[^.:\n]{0,40}:\s*([^\n.!?]{1,300}[.!?]?)", ignore_case=True
)
_MAX_FILES = 1_000


@dataclass(frozen=True, slots=True)
class PromptTexts:
    """The literal texts of prompts, and those of them that the model is told to say, which are no secret."""

    secret: tuple[str, ...] = ()
    said: tuple[str, ...] = ()


def load_prompt_texts(folder: Path | None = None) -> PromptTexts:
    """The packaged prompts, and those of the folder.

    Raises:
        InvalidRequest: no such folder, too many files, or one that is no YAML mapping; names it.
    """
    sources = dict(_packaged())
    if folder is not None:
        if not folder.is_dir():
            raise _refused(str(folder), "is no folder")
        paths = sorted(folder.glob("*.yaml"))
        if len(paths) > _MAX_FILES:
            raise _refused(str(folder), f"has {len(paths)} prompts, more than {_MAX_FILES}; name a smaller one")
        sources |= {str(path): path.read_bytes() for path in paths}
    documents = [_document(file, source) for file, source in sources.items()]
    texts = [str(document.get(field) or "") for document in documents for field in ("system", "user")]
    return prompt_texts(texts)


def prompt_texts(templates: Iterable[str]) -> PromptTexts:
    """What templates say in words, their variables and blocks left out."""
    secret = tuple(part for template in templates for part in _literals(template))
    said = tuple(part[span.start : span.end] for part in secret for span in _SAID.spans(part, group=1))
    return PromptTexts(secret, said)


def _packaged() -> Iterator[tuple[str, bytes]]:
    folder = files("services").joinpath("generator", "prompts")
    if folder.is_dir():  # an image may hold this service alone
        for entry in folder.iterdir():
            if entry.name.endswith(".yaml"):
                yield entry.name, entry.read_bytes()


def _document(file: str, source: bytes) -> dict[str, object]:
    try:
        document = yaml.safe_load(source)
    except (yaml.YAMLError, UnicodeDecodeError, RecursionError) as error:
        raise _refused(file, "is no YAML") from error
    if not isinstance(document, dict):
        raise _refused(file, "must be a mapping with id, version, system and user")
    return document


def _literals(template: str) -> Iterator[str]:
    position = 0
    for span in _TEMPLATE_CODE.spans(template):
        yield template[position : span.start]
        position = span.end
    yield template[position:]


def _refused(file: str, fault: str) -> InvalidRequest:
    return InvalidRequest(f"system_prompts_dir: {file} {fault}", field="system_prompts_dir", reason="PROMPT_INVALID")
