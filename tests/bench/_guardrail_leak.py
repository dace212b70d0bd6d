"""Figures of the leak detector: quotations of the packaged prompts, changed and disguised, against honest answers.

Used by `guardrail_quality.py`. Quotations are drawn from the prompts with a fixed seed; the answers are people's and
models' own, of BEGIN (CC BY 4.0, CDLA-Sharing), LLMBar (MIT) and MTRAG (Apache-2.0).
"""

import base64
import csv
import json
import random
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

from servicekit.domain.verdict import Surface
from services.guardrail.prompt_texts import load_prompt_texts
from tests.bench._guardrail_figures import Figures, binary_figures
from tests.bench._guardrail_shipped import shipped

_QUOTATIONS = 200
_WORDS = (12, 20)
_OWN = ("really", "indeed", "whichever", "perhaps", "strictly", "kindly")

Disguise = Callable[[str, random.Random], str]


def measure(data: Path) -> Mapping[str, Figures]:
    """Each way of quoting against the same answers."""
    detector = shipped("leak")
    answers = list(_answers(data))
    honest = detector.scores(answers, surface=Surface.OUTPUT)
    found = {}
    for name, disguise in _DISGUISES.items():
        quoted = detector.scores(list(_quotations(disguise)), surface=Surface.OUTPUT)
        labels = [True] * len(quoted) + [False] * len(honest)
        found[name] = binary_figures([*quoted, *honest], labels, detector.threshold)
    return found


def _quotations(disguise: Disguise) -> Iterator[str]:
    chance = random.Random(7)
    parts = [words for part in load_prompt_texts().secret if len(words := part.split()) >= _WORDS[1]]
    for _ in range(_QUOTATIONS):
        words = chance.choice(parts)
        length = chance.randint(*_WORDS)
        start = chance.randrange(len(words) - length + 1)
        yield f"Of course. {disguise(' '.join(words[start : start + length]), chance)} That is all."


def _changed(every: int) -> Disguise:
    """Every so many words one is another."""

    def change(text: str, chance: random.Random) -> str:
        words = text.split()
        words[every - 1 :: every] = [chance.choice(_OWN) for _ in words[every - 1 :: every]]
        return " ".join(words)

    return change


_DISGUISES: Mapping[str, Disguise] = {
    "quoted": lambda text, _: text,
    "every 8th word changed": _changed(8),
    "every 5th word changed": _changed(5),
    "base64": lambda text, _: base64.b64encode(text.encode()).decode(),
    "leetspeak": lambda text, _: text.translate(str.maketrans("eo", "30")),
}


def _answers(data: Path) -> Iterator[str]:
    for name in ("cmu", "tc", "wow"):
        with (data / f"grounding/begin_dev_{name}.tsv").open(encoding="utf-8", newline="") as file:
            yield from (row["response"] for row in csv.DictReader(file, delimiter="\t"))
    for name in ("Adversarial_Neighbor", "Natural"):
        for pair in json.loads((data / f"judge/llmbar_{name}_dataset.json").read_text("utf-8")):
            yield from (pair["output_1"], pair["output_2"])
    for line in (data / "conversations/mtrag_un_first_200.jsonl").read_text("utf-8").splitlines():
        yield from (target["text"] for target in json.loads(line)["targets"])
