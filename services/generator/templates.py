"""The prompts that can be asked for, several versions of each side by side.

Read by `bootstrap.py` at start; asked by `preparing.py`. `prompts/README.md` says how a prompt is written.
"""

import re
from collections.abc import Iterable, Mapping
from importlib.resources import files
from pathlib import Path

from servicekit.errors import NotFound
from services.generator.prompt_files import invalid, parse_template
from services.generator.prompt_template import PromptTemplate

_PARTS = re.compile(r"\d+|\D+")


class PromptLibrary:
    """The templates by id and version; of each id the newest is the default.

    Versions are compared by their numbers: 10 is newer than 9, and 1.2.1 newer than 1.2.
    """

    def __init__(self, packaged: Iterable[PromptTemplate], own: Iterable[PromptTemplate] = ()) -> None:
        """Of an id among the `own`, the default is one of these, and its packaged versions are left to be pinned."""
        self._versions: dict[str, dict[str, PromptTemplate]] = {}
        self._newest: dict[str, PromptTemplate] = {}
        for templates in (packaged, own):
            added = sorted(templates, key=lambda template: _age(template.ref.version))
            for template in added:
                self._versions.setdefault(template.ref.prompt_id, {})[template.ref.version] = template
                self._newest[template.ref.prompt_id] = template

    def get(self, prompt_id: str) -> PromptTemplate:
        """The newest of an id, or the version that `id@version` pins.

        Raises:
            NotFound: there is none of this id, or of this version; names those there are.
        """
        name, pinned, version = prompt_id.partition("@")
        template = self._newest.get(name) if not pinned else self._versions.get(name, {}).get(version)
        if template is not None:
            return template
        if name in self._versions:
            known = ", ".join(sorted(self._versions[name], key=_age))
            raise NotFound(f"no version {version!r} of prompt {name!r}; known: {known}", reason="PROMPT_NOT_FOUND")
        known = ", ".join(sorted(self._versions))
        raise NotFound(f"no prompt {name!r}; known: {known}", reason="PROMPT_NOT_FOUND")


def load_prompts(folder: Path | None, *, canary: str = "") -> PromptLibrary:
    """The packaged templates, and those of the folder, which come before packaged ones of the same id.

    Raises:
        InvalidRequest: a file that cannot be followed; names file, line and field. Two of one id and version.
    """
    entries = files("services.generator").joinpath("prompts").iterdir()
    packaged = {entry.name: entry.read_bytes() for entry in entries if entry.name.endswith(".yaml")}
    if folder is None:
        return PromptLibrary(_parsed(packaged, canary))
    if not folder.is_dir():
        raise invalid(str(folder), "is no folder")
    own = {str(path): path.read_bytes() for path in folder.glob("*.yaml")}
    return PromptLibrary(_parsed(packaged, canary), _parsed(own, canary))


def _parsed(sources: Mapping[str, bytes], canary: str) -> list[PromptTemplate]:
    found: dict[tuple[str, str], str] = {}
    templates = []
    for file, source in sorted(sources.items()):
        template = parse_template(source, file=file, canary=canary)
        key = template.ref.prompt_id, template.ref.version
        if key in found:
            told = f"prompt {key[0]!r} has version {key[1]!r} in {found[key]} too; give this one another version"
            raise invalid(file, told)
        found[key] = file
        templates.append(template)
    return templates


def _age(version: str) -> tuple[tuple[int, str], ...]:
    """What versions are sorted by; text comes before numbers."""
    return tuple((int(part), "") if part.isdecimal() else (-1, part) for part in _PARTS.findall(version))
