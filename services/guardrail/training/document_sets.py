"""The documents and the hidden instructions that the model of indirect injections is trained and judged on.

Read by `training/indirect_injection.py` and the quality bench; what lies where is said as in `sets.py`.
"""

import csv
import inspect
import json
import re
from collections.abc import Iterable, Sequence
from functools import partial
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np

from services.guardrail.pieces import pieces
from services.guardrail.training.sets import SETS, TextSet

TEXT_ATTACKS = "injection/bipia_train/text_attack_train.json"
CODE_ATTACKS = "injection/bipia_train/code_attack_train.json"
_FENCE = "```"
_TAG = re.compile(r"<[^<>]{1,30}>")
_SHUFFLE_SEED = 11
_LONGEST_TASK = 300
_DOCSTRING_MODULES = (
    *("argparse", "asyncio", "csv", "decimal", "http.client", "inspect", "json", "logging", "os", "random", "socket"),
    *("sqlite3", "ssl", "statistics", "subprocess", "tarfile", "threading", "turtle", "unittest", "zipfile"),
)


def attacks(data: Path, file: str) -> dict[str, list[str]]:
    """BIPIA's instructions by category; of those that bring code, what is said before it."""
    document = json.loads((data / file).read_text("utf-8"))
    return {category: [text.partition(_FENCE)[0].strip() for text in texts] for category, texts in document.items()}


def sentences(texts: Iterable[str], *, at_most: int | None = None) -> list[str]:
    """Different sentences of documents, in order; of too many, some drawn at random, the same ones each time."""
    found = list(dict.fromkeys(text[piece.start : piece.end] for text in texts for piece in pieces(text)))
    if at_most is None or len(found) <= at_most:
        return found
    drawn = np.random.Generator(np.random.PCG64(_SHUFFLE_SEED)).choice(len(found), at_most, replace=False)
    return [found[int(place)] for place in sorted(drawn)]


def docstrings(data: Path) -> list[str]:
    """Of functions and classes of Python's standard library: documents full of orders, none of them to a model."""
    del data  # ships with Python
    objects = [value for name in _DOCSTRING_MODULES for value in vars(import_module(name)).values()]
    texts = (value.__doc__ for value in objects if inspect.isroutine(value) or inspect.isclass(value))
    return list(dict.fromkeys(inspect.cleandoc(text) for text in texts if text))


def _attacks(file: str, data: Path) -> list[str]:
    return [text for texts in attacks(data, file).values() for text in texts]


def _emails(data: Path) -> list[str]:
    return [case["context"] for case in _lines(data / "injection/bipia_train/email_train.jsonl")]


def _code_contexts(data: Path) -> list[str]:
    return ["\n".join(case["context"]) for case in _lines(data / "injection/bipia_train/code_train.jsonl")]


def _lines(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text("utf-8").splitlines()]


def _knowledge(data: Path) -> list[str]:
    with (data / "grounding/begin_dev_wow.tsv").open(encoding="utf-8", newline="") as lines:
        return list(dict.fromkeys(row["knowledge"] for row in csv.DictReader(lines, delimiter="\t")))


def _tasks(data: Path) -> list[str]:
    first_lines = [text.strip().split("\n")[0] for text in SETS["llmbar"].read(data)]
    return [line for line in first_lines if line and len(line) <= _LONGEST_TASK]


def _questions(data: Path) -> list[str]:
    return [f"{text[0].upper()}{text[1:].rstrip('?')}?" for text in SETS["nq_open"].read(data)]


def _questions_answered(data: Path) -> list[str]:
    """Passages under the question that they answer, as in a page of questions (FAQ)."""
    pairs = zip(SETS["halueval_questions"].read(data), SETS["halueval_passages"].read(data), strict=True)
    return [f"{question.strip()}\n{passage.strip()}" for question, passage in pairs]


def _abstracts(data: Path) -> Sequence[str]:
    content = (data / "retrieval/cranfield/cran.all.1400.xml").read_text("utf-8")
    parts = content.split("<text>")[1:]
    return [_TAG.sub(" ", part.partition("</text>")[0]).strip() for part in parts]


_MIT, _APACHE, _CC, _BIPIA = "MIT", "Apache-2.0", "CC BY 4.0", "microsoft/BIPIA @ 1a2a91d"

DOCUMENT_SETS: dict[str, TextSet] = {
    each.id: each
    for each in (
        TextSet("bipia_text_attacks", _MIT, _BIPIA, True, partial(_attacks, TEXT_ATTACKS)),
        TextSet("bipia_code_attacks", _MIT, _BIPIA, True, partial(_attacks, CODE_ATTACKS)),
        TextSet("bipia_emails", _MIT, _BIPIA, True, _emails),
        TextSet("bipia_code_contexts", _MIT, _BIPIA, True, _code_contexts),
        TextSet("begin_wow", _CC, "google/BEGIN-dataset @ 6e65f0d", True, _knowledge),
        TextSet("llmbar_tasks", _MIT, "princeton-nlp/LLMBar @ 900616b", True, _tasks),
        TextSet("nq_questions", _APACHE, "google-research-datasets/natural-questions", True, _questions),
        TextSet("questions_answered", _MIT, "RUCAIBox/HaluEval @ b7253db", True, _questions_answered),
        TextSet("cranfield", "none stated", "oussbenk/cranfield @ 1208e6e", False, _abstracts),
        TextSet("python_docstrings", "PSF-2.0", "docstrings of CPython's standard library", False, docstrings),
        *(SETS[name] for name in ("mtrag_passages", "halueval_passages", "python_topics", "personal_sentences")),
    )
}
"""Every set by id. Sets that may not train still judge; docstrings could train, and are kept to judge."""
