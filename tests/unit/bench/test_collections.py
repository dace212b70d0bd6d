"""Test collections are read as their formats mean them, with the traps of Cranfield's files."""

import json
from pathlib import Path

import pytest

from tests.bench._collections import read_squad, read_trec
from tests.bench._relevance import measure

DOCUMENTS = """<doc><docno>1</docno><title>wings</title><author>x</author><text>lift of
wings .</text></doc>
<doc><docno>2</docno><title>heat</title><text>heat in slabs .</text></doc>
<doc><docno>3</docno><title></title><text></text></doc>
"""
TOPICS = """<?xml version='1.0' encoding='utf-8' standalone='yes'?>
<xml><top><num> 1</num> <title>
what lifts a wing .
</title></top><top><num> 4</num><title>heat conduction</title></top></xml>
"""


def write_trec(folder: Path, qrels: str) -> Path:
    """A folder as Cranfield's."""
    (folder / "small.all.3.xml").write_text(DOCUMENTS, encoding="utf-8")
    (folder / "small.qry.xml").write_text(TOPICS, encoding="utf-8")
    (folder / "smallqrel.trec.txt").write_text(qrels, encoding="utf-8")
    return folder


def test_judgments_name_queries_by_their_place(tmp_path: Path) -> None:
    """Topic numbers leave gaps, judgments count on; a document without text is left out."""
    collection = read_trec(write_trec(tmp_path, "1 0 1 1\n2 0 2 3\n2 0 1 0\n"))
    assert [one.document_id for one in collection.documents] == ["1", "2"]
    assert collection.documents[0].title == "wings"
    assert collection.queries == {"1": "what lifts a wing .", "2": "heat conduction"}
    assert collection.qrels == {"1": {"1": 1}, "2": {"2": 3, "1": 0}}


def test_judgments_that_use_the_topics_numbers_are_followed(tmp_path: Path) -> None:
    """Where every judged number is a topic's, it is that topic's."""
    collection = read_trec(write_trec(tmp_path, "1 0 1 1\n4 0 2 1\n"))
    assert collection.queries["4"] == "heat conduction"


def test_a_folder_without_judgments_is_told(tmp_path: Path) -> None:
    """What is missing is named, and what is there."""
    write_trec(tmp_path, "")
    (tmp_path / "smallqrel.trec.txt").unlink()
    with pytest.raises(SystemExit, match=r"judgments.*small\.qry"):
        read_trec(tmp_path)


def test_each_paragraph_is_a_document(tmp_path: Path) -> None:
    """A paragraph that stands twice is one; each question's relevant document is its paragraph."""
    questions = [{"id": "a", "question": "who?"}, {"id": "b", "question": "where?"}]
    paragraphs = [
        {"context": "She was there.", "qas": questions[:1]},
        {"context": "They were here.", "qas": questions[1:]},
        {"context": "She was there.", "qas": [{"id": "c", "question": "when?"}]},
    ]
    file = tmp_path / "dev.json"
    file.write_text(json.dumps({"data": [{"title": "Some_Person", "paragraphs": paragraphs}]}), encoding="utf-8")
    collection = read_squad(file)
    assert [(one.document_id, one.title) for one in collection.documents] == [
        ("p0", "Some Person"),
        ("p1", "Some Person"),
    ]
    assert collection.qrels == {"a": {"p0": 1}, "b": {"p1": 1}, "c": {"p0": 1}}
    assert list(collection.sample(2).queries) == ["a", "b"]


def test_measures_are_those_of_trec() -> None:
    """The relevant document second: nDCG is 1 / log2(3), average precision one half; nothing found counts 0."""
    found = measure({"1": {"a": 1}, "2": {"b": 1}}, {"1": {"x": 2.0, "a": 1.0}, "2": {}})
    assert found["ndcg@10"] == pytest.approx(0.6309 / 2, abs=1e-4)
    assert found["map"] == pytest.approx(0.25)
    assert found["recall@10"] == found["recall@100"] == pytest.approx(0.5)
