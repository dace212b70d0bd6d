"""Counts which letter follows which in English, for `services/guardrail/reading/letter_pairs.py`.

`python -m services.guardrail.training.letter_pairs --data ../shared/data` prints the table that stands there. From
natural-questions (Apache-2.0) and the e-mails of BIPIA (MIT).
"""

import argparse
import json
import math
from collections import Counter
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path

from services.guardrail.reading.letter_pairs import LETTERS, WORST

_SMOOTHING = 0.5


def main() -> None:
    """Print the table, a line for each first letter."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", type=Path, required=True, help="folder of the data sets")
    for line in table(_texts(parser.parse_args().data)):
        print(f'    "{line}"')  # noqa: T201  # what this command is for


def table(texts: Iterator[str]) -> list[str]:
    """-log2 of the probability of each letter behind each, rounded to one hexadecimal digit."""
    counts: Counter[tuple[str, str]] = Counter()
    for text in texts:
        shown = "".join(char if char in LETTERS else " " for char in f" {text.lower()} ")
        counts.update(pairwise(" ".join(shown.split(" "))))
    lines = []
    for first in LETTERS:
        row = [counts[first, second] + _SMOOTHING for second in LETTERS]
        lines.append("".join(f"{min(WORST, round(-math.log2(one / sum(row)))):x}" for one in row))
    return lines


def _texts(data: Path) -> Iterator[str]:
    for line in (data / "drift/nq_open_first_1800.jsonl").read_text("utf-8").splitlines():
        yield json.loads(line)["question"]
    for line in (data / "injection/bipia_train/email_train.jsonl").read_text("utf-8").splitlines():
        yield json.loads(line)["context"]


if __name__ == "__main__":
    main()
