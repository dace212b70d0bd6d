"""Figures of reading disguised texts: how many attacks come back as they were, how many honest texts are changed.

Used by `guardrail_quality.py`. "recall": the share of attacks of which a view shows at least nine tenths of the words;
"fpr": the share of honest texts that get a further view, which costs their detectors time and nothing else.
"""

import base64
import codecs
import csv
import json
import re
import urllib.parse
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

from services.guardrail.normalizing import normalize
from tests.bench._guardrail_figures import Figures, binary_figures

_LONGEST = 400
_THRESHOLD = 0.9
_WORD = re.compile(r"\w+")
_LOOKALIKES = str.maketrans("aeopc", "\u0430\u0435\u043e\u0440\u0441")
_LEET = str.maketrans("aeio", "4310")


def measure(data: Path) -> Mapping[str, Figures]:
    """Each disguise against the same honest texts."""
    attacks = [text[:_LONGEST] for text in _attacks(data)]
    honest = [1.0 if len(normalize(text).views) > 1 else 0.0 for text in _honest(data)]
    found = {}
    for name, disguise in _DISGUISES.items():
        scores = [_read_share(text, disguise(text)) for text in attacks]
        labels = [True] * len(scores) + [False] * len(honest)
        found[name] = binary_figures([*scores, *honest], labels, _THRESHOLD)
    return found


def _read_share(text: str, disguised: str) -> float:
    """The share of the text's words that a view shows."""
    words = set(_WORD.findall(text.casefold()))
    shown = max(len(words & set(_WORD.findall(view.text.casefold()))) for view in normalize(disguised).views)
    return shown / len(words) if words else 1.0


_DISGUISES: Mapping[str, Callable[[str], str]] = {
    "base64": lambda text: base64.b64encode(text.encode()).decode(),
    "base64 twice": lambda text: base64.b64encode(base64.b64encode(text.encode())).decode(),
    "hexadecimal": lambda text: text.encode().hex(),
    "percent": urllib.parse.quote,
    "entities": lambda text: "".join(f"&#{ord(char)};" for char in text),
    "rot13": lambda text: codecs.encode(text, "rot13"),
    "look-alikes": lambda text: text.translate(_LOOKALIKES),
    "zero-width": "\u200b".join,
    "leetspeak": lambda text: text.translate(_LEET),
    "spaced": lambda text: "  ".join(" ".join(word) for word in text.split()),
}


def _attacks(data: Path) -> Iterator[str]:
    with (data / "injection/attacks/giskard.csv").open(encoding="utf-8", newline="") as file:
        yield from (row["prompt"] for row in csv.DictReader(file))
    cases = json.loads((data / "injection/attacks/cyberseceval.json").read_text("utf-8"))
    yield from (case["user_input"] for case in cases)


def _honest(data: Path) -> Iterator[str]:
    for line in (data / "drift/nq_open_first_1800.jsonl").read_text("utf-8").splitlines():
        yield json.loads(line)["question"]
    for name in ("email_train", "code_train"):
        for line in (data / f"injection/bipia_train/{name}.jsonl").read_text("utf-8").splitlines():
            yield str(json.loads(line)["context"])
