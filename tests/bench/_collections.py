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
_CAPITAL_TAG = re.compile(r"</?[A-Z]+>")
_BARE_AMPERSAND = re.compile(r"&(?![A-Za-z]+;|#\w+;)")
_BEGIN = r"(?is)\s*(?:<\?xml[^>]*>)?\s*(?:<(?!doc>|top>)[a-z]\w*>\s*)?"
_DOCUMENTS = re.compile(_BEGIN + "<doc>")
_TOPICS = re.compile(_BEGIN + "<top>")
_JUDGMENT = re.compile(r"^(\S+)[ \t]+\S+[ \t]+(\S+)[ \t]+(-?\d+)[ \t]*\r?$", re.MULTILINE)


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
    """A folder such as Cranfield's: files with `<doc>` elements, one with `<top>` elements, one with judgments.

    Files are known by what they begin with. Judgments name a query by its place among the topics from 1, whatever its
    number there: that of Cranfield's, whose topic numbers leave gaps. Where all the numbers judged are the topics' own,
    those count. Documents without text are left out, as no index holds them; a judgment that names one stays, so that
    no system finds it.
    """
    sources = {path: path.read_text("utf-8", "replace") for path in sorted(folder.iterdir()) if path.is_file()}
    documents = tuple(
        CollectionDocument(_field(element, "docno"), _field(element, "title"), text)
        for source in _those(folder, sources, _DOCUMENTS, "documents, in <doc> elements")
        for element in _elements(source, "doc")
        if (text := _field(element, "text") or _field(element, "title"))
    )
    topics = [
        (_field(element, "num"), _field(element, "title"))
        for source in _those(folder, sources, _TOPICS, "topics, in <top> elements")
        for element in _elements(source, "top")
    ]
    qrels: dict[str, dict[str, int]] = {}
    for source in _those(folder, sources, _JUDGMENT, "judgments, lines such as '1 0 184 1'"):
        for query, document, grade in _JUDGMENT.findall(source):
            qrels.setdefault(query, {})[document] = int(grade)
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


def _those(folder: Path, sources: Mapping[Path, str], kind: re.Pattern[str], what: str) -> list[str]:
    found = [source for source in sources.values() if kind.match(source)]
    if not found:
        raise SystemExit(f"{folder} holds no file with {what}; it holds {', '.join(one.name for one in sources)}")
    return found


def _elements(source: str, tag: str) -> Iterator[ET.Element]:
    """Elements of a file that may have no root, tags in capitals, signs that XML wants escaped."""
    inner = _CAPITAL_TAG.sub(lambda match: match.group().lower(), _DECLARATION.sub("", source))
    yield from ET.fromstring(f"<file>{_BARE_AMPERSAND.sub('&amp;', inner)}</file>").iter(tag)


def _field(element: ET.Element, tag: str) -> str:
    found = element.find(tag)
    return "".join(found.itertext()).strip() if found is not None else ""
