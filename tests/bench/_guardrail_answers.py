"""Answers with the texts they should follow from, and whether they do: the sets that groundedness is measured on.

Read by `_guardrail_groundedness.py`; the swapped ones are made by `_guardrail_swaps.py`.
"""

import csv
import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

BEGIN_DOMAINS = {"wow": "begin_wow", "cmu": "begin_cmu", "tc": "begin_topicalchat"}
_FULLY, _GENERIC = "Fully attributable", "Generic"


@dataclass(frozen=True, slots=True)
class Answer:
    """An answer and its context; `group` keeps what belongs together in one fold."""

    context: tuple[str, ...]
    text: str
    unsupported: bool
    generic: bool = False
    group: str = ""


def begin(data: Path, domain: str) -> list[Answer]:
    """BEGIN's development set of one domain: all that is not fully attributable counts as unsupported."""
    with (data / f"grounding/begin_dev_{domain}.tsv").open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file, delimiter="\t"))
    return [
        Answer(
            (row["knowledge"],),
            row["response"],
            unsupported=row["begin_label"].strip() != _FULLY,
            generic=row["begin_label"].strip() == _GENERIC,
            group=row["knowledge"],
        )
        for row in rows
    ]


def halueval(data: Path) -> list[Answer]:
    """HaluEval's right and hallucinated answers: the length alone tells them apart, so never use it as it is."""
    lines = (data / "grounding/halueval_qa_one_turn.json").read_text("utf-8").splitlines()
    cases = [json.loads(line) for line in lines if line.strip()]
    return [
        Answer((case["knowledge"],), case[name], unsupported=name != "right_answer", group=case["knowledge"])
        for case in cases
        for name in ("right_answer", "hallucinated_answer")
    ]


def of_matched_lengths(answers: Sequence[Answer]) -> list[Answer]:
    """As many supported as unsupported answers of each number of words, the first of each: length tells nothing."""
    by_length: dict[int, tuple[list[Answer], list[Answer]]] = {}
    for answer in answers:
        by_length.setdefault(len(answer.text.split()), ([], []))[answer.unsupported].append(answer)
    return [
        answer
        for supported, unsupported in (by_length[length] for length in sorted(by_length))
        for pair in zip(supported, unsupported, strict=False)
        for answer in pair
    ]


def mtrag(data: Path) -> list[Answer]:
    """Answers of retrieval-augmented tasks with their contexts, and the same answers with another task's."""
    lines = (data / "conversations/mtrag_un_first_200.jsonl").read_text("utf-8").splitlines()
    tasks = [task for task in map(json.loads, lines) if task["contexts"] and task["answerability"] == ["ANSWERABLE"]]
    found = []
    for place, task in enumerate(tasks):
        text, group = task["targets"][0]["text"], task["conversation_id"]
        others = (tasks[(place + step) % len(tasks)] for step in range(1, len(tasks)))
        other = next((one for one in others if one["conversation_id"] != group), None)
        found.append(Answer(_contexts(task), text, unsupported=False, group=group))
        if other:
            found.append(Answer(_contexts(other), text, unsupported=True, group=group))
    return found


def _contexts(task: dict[str, list[dict[str, str]]]) -> tuple[str, ...]:
    return tuple(chunk["text"] for chunk in task["contexts"])
