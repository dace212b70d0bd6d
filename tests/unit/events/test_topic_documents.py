"""The generated documents of topics: complete, consistent, and about what is really there."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jsonschema
import pytest
import yaml

from servicekit.domain.envelope import Envelope
from servicekit.events.codec import decode_headers, encode_headers
from servicekit.events.docs.__main__ import main, read_sources, to_yaml
from servicekit.events.docs.asyncapi import document, example_headers, slug
from servicekit.events.docs.pages import page
from servicekit.events.topics import TOPICS, TopicSpec, message_class

_ROOT = Path(__file__).parent.parent.parent.parent
_SOURCES = read_sources(_ROOT)
_DOCUMENT = document(_SOURCES)
_SPECS = pytest.mark.parametrize("spec", TOPICS.values(), ids=TOPICS)


def _name(spec: TopicSpec) -> str:
    return spec.message.rpartition(".")[2]


def test_what_is_checked_in_is_fresh(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    """`make protos` would change nothing."""
    monkeypatch.chdir(_ROOT)
    assert main(["--check"]) == 0, capsys.readouterr().err


def test_a_stale_document_fails_the_check(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """A document that differs, or is missing, is named with the remedy."""
    for name in ("tests", "pyproject.toml"):
        (tmp_path / name).symlink_to(_ROOT / name)
    (tmp_path / "protos").mkdir()
    for name in ("binnacle", "gen", "TOPICS.md"):
        (tmp_path / "protos" / name).symlink_to(_ROOT / "protos" / name)
    (tmp_path / "protos" / "asyncapi.yaml").write_text("asyncapi: 2.6.0\n", encoding="utf-8")
    monkeypatch.chdir(tmp_path)
    assert main(["--check"]) == 1
    assert "asyncapi.yaml: stale; run 'make protos'" in capsys.readouterr().err


def test_yaml_says_what_the_document_says() -> None:
    """Nothing is lost or reinterpreted on the way into the file."""
    assert yaml.safe_load(to_yaml(_DOCUMENT)) == json.loads(json.dumps(_DOCUMENT))


@_SPECS
def test_every_topic_has_its_channel(spec: TopicSpec) -> None:
    """Address, partitions, retention, producers and consumers are the registry's."""
    channel = _DOCUMENT["channels"][_name(spec)]
    kafka = channel["bindings"]["kafka"]
    assert (channel["address"], kafka["partitions"]) == (spec.name, spec.partitions)
    assert (channel["x-producers"], channel["x-consumers"]) == (list(spec.producers), list(spec.consumers))
    assert ("retention.ms" in kafka["topicConfiguration"]) == (spec.retention is not None)
    assert kafka["topicConfiguration"]["cleanup.policy"] == ["compact" if spec.compacted else "delete"]


@_SPECS
def test_the_example_is_an_event_of_the_topic(spec: TopicSpec) -> None:
    """Headers parse as ours; the payload fits the JSON Schema, which knows each of its fields."""
    (example,) = _DOCUMENT["components"]["messages"][_name(spec)]["examples"]
    headers = [(name, value.encode()) for name, value in example["headers"].items()]
    envelope = decode_headers(headers)
    assert envelope.type == spec.message
    validator = jsonschema.Draft7Validator({**_DOCUMENT, "$ref": f"#/components/schemas/{spec.message}"})
    assert list(validator.iter_errors(example["payload"])) == []
    assert set(example["payload"]) == {field.name for field in message_class(spec.name).DESCRIPTOR.fields}
    jsonschema.validate(example["headers"], _DOCUMENT["components"]["schemas"]["Envelope"])


def test_a_wrong_payload_does_not_fit() -> None:
    """The schemas tell types apart, inside of nested messages too."""
    reference = "#/components/schemas/binnacle.events.v1.InteractionCompleted"
    validator = jsonschema.Draft7Validator({**_DOCUMENT, "$ref": reference})
    for wrong in ({"cost_microusd": 12}, {"answer": 1}, {"chunks": {}}, {"labels": {"a": 1}}, {"attempts": ["x"]}):
        assert list(validator.iter_errors(wrong)), wrong


def test_headers_are_those_that_producers_write() -> None:
    """The schema of the envelope lists every header, and no other."""
    written = Envelope(id="i", source="s", type="t", tenant="a", producer="p", sequence=1, traceparent="x")
    names = {name for name, _ in encode_headers(written)}
    assert names == set(_DOCUMENT["components"]["schemas"]["Envelope"]["properties"])
    assert names == set(example_headers(next(iter(TOPICS.values()))))


def test_every_field_and_value_is_explained() -> None:
    """No field, enum or value is without its comment."""
    catalogue = _SOURCES.catalogue
    unsaid = [name for name, one in {**catalogue.messages, **catalogue.enums}.items() if not one.comment]
    unsaid += [f"{name}.{f.name}" for name, one in catalogue.messages.items() for f in one.fields if not f.comment]
    unsaid += [value.name for one in catalogue.enums.values() for value in one.values if not value.comment]
    assert unsaid == []


def test_every_reference_leads_somewhere() -> None:
    """No `$ref` is broken."""
    for reference in _references(_DOCUMENT):
        found: Any = _DOCUMENT
        for step in reference.removeprefix("#/").split("/"):
            found = found[step]
        assert found


def _references(value: object) -> Iterator[str]:
    if isinstance(value, dict):
        if isinstance(value.get("$ref"), str):
            yield value["$ref"]
        for one in value.values():
            yield from _references(one)
    elif isinstance(value, list):
        for one in value:
            yield from _references(one)


def test_every_link_of_the_page_leads_to_a_heading() -> None:
    """Topics, messages and enums that the page refers to stand on it."""
    text = page(_SOURCES)
    headings = {slug(line.lstrip("# ")) for line in text.splitlines() if line.startswith("#")}
    links = {part.partition(")")[0] for part in text.split("](#")[1:]}
    assert links - headings == set()
    assert {slug(name) for name in TOPICS} <= headings
