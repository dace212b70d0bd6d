"""Writes `protos/asyncapi.yaml` and `protos/TOPICS.md`, or says that they are stale (`--check`).

Run from the repository's root by `make protos` and `make check`.
"""

import argparse
import json
import sys
import tomllib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml
from google.protobuf.descriptor_pb2 import FileDescriptorSet

from servicekit.events.docs.asyncapi import Sources, document
from servicekit.events.docs.catalogue import read_catalogue
from servicekit.events.docs.pages import page
from servicekit.events.topics import TOPICS

_WIDTH = 120


def main(arguments: Sequence[str] | None = None) -> int:
    """Write or check; the exit status is 1 when `--check` finds a difference."""
    parser = argparse.ArgumentParser(prog="python -m servicekit.events.docs", description=__doc__)
    parser.add_argument("--check", action="store_true", help="write nothing; fail if a document is stale")
    check: bool = parser.parse_args(arguments).check
    stale = []
    for path, text in _documents(Path.cwd()).items():
        if check and (not path.exists() or path.read_text(encoding="utf-8") != text):
            stale.append(path.name)
        elif not check:
            path.write_text(text, encoding="utf-8")
    if stale:
        sys.stderr.write(f"protos/{' and '.join(stale)}: stale; run 'make protos' and commit it\n")
        return 1
    sys.stdout.write("topic documents: fresh\n" if check else "")
    return 0


def _documents(root: Path) -> dict[Path, str]:
    protos = root / "protos"
    sources = read_sources(root)
    return {
        protos / "asyncapi.yaml": to_yaml(document(sources)),
        protos / "TOPICS.md": page(sources),
    }


def read_sources(root: Path) -> Sources:
    """The registry, and from the repository: descriptors with comments, proto texts, examples and version."""
    protos = root / "protos"
    descriptors = FileDescriptorSet.FromString((protos / "gen/binnacle/events.binpb").read_bytes())
    project = tomllib.loads((root / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    return Sources(
        topics=TOPICS,
        catalogue=read_catalogue(descriptors),
        protos={
            path.relative_to(protos).as_posix(): path.read_text(encoding="utf-8")
            for path in sorted((protos / "binnacle/events").rglob("*.proto"))
        },
        examples=_newest_examples(root / "tests/contract/golden"),
        version=project["version"],
    )


def _newest_examples(golden: Path) -> dict[str, Mapping[str, Any]]:
    """The fields of the newest golden file of each message (`Name.json`, `Name.2.json` and so on)."""
    newest: dict[str, tuple[int, Mapping[str, Any]]] = {}
    for path in golden.glob("*.json"):
        name, _, number = path.stem.partition(".")
        version = int(number or 1)
        if version >= newest.get(name, (0, {}))[0]:
            newest[name] = version, json.loads(path.read_text(encoding="utf-8"))["fields"]
    return {name: fields for name, (_, fields) in newest.items()}


class _Dumper(yaml.SafeDumper):
    """Texts of several lines as blocks, and no anchors: every part can be read alone."""

    def ignore_aliases(self, data: object) -> bool:
        """Repeat what occurs twice."""
        del data
        return True


def _text(dumper: _Dumper, value: str) -> yaml.ScalarNode:
    return dumper.represent_scalar("tag:yaml.org,2002:str", value, style="|" if "\n" in value else None)


_Dumper.add_representer(str, _text)


def to_yaml(value: Mapping[str, Any]) -> str:
    """YAML in the order of the mapping."""
    return yaml.dump(dict(value), Dumper=_Dumper, sort_keys=False, allow_unicode=True, width=_WIDTH)


if __name__ == "__main__":
    sys.exit(main())
