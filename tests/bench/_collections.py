"""Reads test collections: TREC format and SQuAD format, as documents, queries and judgments.

Used by `retrieval_quality.py`.
"""

import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from xml.etree import ElementTree as ET

_DECLARATION = re.compile(r"<\?xml[^>]*\?>")
_QRELS_COLUMNS = 4


@dataclass(frozen=True, slots=True)
class CollectionDocument:
    """One document; `text` is what is indexed."""

    document_id: str
    title: str
    text: str


@dataclass(frozen=True, slots=True)
class Collection:
    """Documents, queries by id, and the grade of each judged document by query id."""

    name: str
    documents: tuple[CollectionDocument, ...]
    queries: Mapping[str, str]
    qrels: Mapping[str, Mapping[str, int]]

    def sample(self, count: int) -> "Collection":
        """The same with at most `count` queries, evenly chosen; 0: all."""
        keys = list(self.queries)
        if count and len(keys) > count:
            keys = [keys[place * len(keys) // count] for place in range(count)]
        return replace(self, queries={key: self.queries[key] for key in keys})


def read_trec(folder: Path) -> Collection:
    """Documents (`*.all*.xml`), topics (`*.qry*.xml`) and judgments (`*qrel*`) of a folder such as Cranfield's.

    Judgments name a query by its place among the topics from 1, whatever its number there: that of Cranfield's, whose
    topic numbers leave gaps. Where all the topics' own numbers are judged, those count. Documents without text are
    left out, as no index holds them; a judgment that names one stays, so that no system finds it.
    """
    documents = tuple(
        CollectionDocument(_field(element, "docno"), _field(element, "title"), text)
        for element in _elements(_one(folder, "*all*.xml"), "doc")
        if (text := _field(element, "text") or _field(element, "title"))
    )
    topics = [(_field(one, "num"), _field(one, "title")) for one in _elements(_one(folder, "*qry*.xml"), "top")]
    qrels: dict[str, dict[str, int]] = {}
    for line in _one(folder, "*qrel*").read_text("utf-8").splitlines():
        columns = line.split()
        if len(columns) >= _QRELS_COLUMNS:
            qrels.setdefault(columns[0], {})[columns[2]] = int(columns[3])
    own_numbers = {number for number, _ in topics} >= qrels.keys()
    queries = {number if own_numbers else str(place): text for place, (number, text) in enumerate(topics, start=1)}
    return Collection(folder.name, documents, {key: queries[key] for key in qrels if key in queries}, qrels)


def read_squad(file: Path) -> Collection:
    """Each paragraph a document, each question a query whose one relevant document is its paragraph."""
    documents: list[CollectionDocument] = []
    places: dict[str, str] = {}
    queries: dict[str, str] = {}
    qrels: dict[str, dict[str, int]] = {}
    for article in json.loads(file.read_text("utf-8"))["data"]:
        for paragraph in article["paragraphs"]:
            context = paragraph["context"]
            if not context.strip():
                continue
            document_id = places.setdefault(context, f"p{len(places)}")
            if document_id == f"p{len(documents)}":
                documents.append(CollectionDocument(document_id, _readable(article.get("title", "")), context))
            for question in paragraph["qas"]:
                if question["question"].strip():
                    key = str(question.get("id") or f"q{len(queries)}")
                    queries[key] = question["question"].strip()
                    qrels[key] = {document_id: 1}
    return Collection(file.stem, tuple(documents), queries, qrels)


def _readable(title: str) -> str:
    """SQuAD's titles are the last part of an article's address."""
    return title.replace("_", " ").strip()


def _one(folder: Path, pattern: str) -> Path:
    found = sorted(folder.glob(pattern))
    if len(found) != 1:
        names = ", ".join(path.name for path in found) or "none"
        raise SystemExit(f"{folder} must hold one file named like {pattern!r}, found: {names}")
    return found[0]


def _elements(file: Path, tag: str) -> Iterator[ET.Element]:
    """Elements of a file that may have no root, one root, or a declaration inside."""
    source = _DECLARATION.sub("", file.read_text("utf-8"))
    yield from ET.fromstring(f"<file>{source}</file>").iter(tag)


def _field(element: ET.Element, tag: str) -> str:
    found = element.find(tag)
    return "".join(found.itertext()).strip() if found is not None else ""
