"""Groundedness on public sets: what is looked for is the answer that its context does not support.

Run by `guardrail_quality.py`. `generic` answers of BEGIN (they state nothing of the context) count as unsupported, and
are left out in the sets that say so. HaluEval's answers are compared with answers of the same number of words only.
"""

from collections.abc import Callable, Sequence
from pathlib import Path

from servicekit.domain.verdict import Surface
from tests.bench._guardrail_answers import BEGIN_DOMAINS, Answer, begin, halueval, mtrag, of_matched_lengths
from tests.bench._guardrail_figures import Figures, auroc, binary_figures, skipped
from tests.bench._guardrail_shipped import in_threads, shipped
from tests.bench._guardrail_swaps import SWAPS, swapped


def measure(data: Path) -> dict[str, Figures]:
    """Figures by set; a set whose files are not there is skipped."""
    found: dict[str, Figures] = {}
    for domain, name in BEGIN_DOMAINS.items():
        found |= _begin(data, domain, name)
    found["halueval_matched_lengths"] = _read(lambda: of_matched_lengths(halueval(data)), _with_length)
    found["mtrag"] = _read(lambda: mtrag(data), figures_of)
    for swap in SWAPS:
        found[f"swapped_{swap}"] = _read(lambda swap=swap: swapped(data, swap), figures_of)  # type: ignore[misc]
    return found


def figures_of(answers: Sequence[Answer]) -> Figures:
    """Figures of the shipped detector on these answers."""
    detector = shipped("groundedness")
    scores = in_threads(
        lambda answer: detector.score(answer.text, surface=Surface.OUTPUT, chunk_texts=answer.context), answers
    )
    return binary_figures(scores, [answer.unsupported for answer in answers], detector.threshold)


def _begin(data: Path, domain: str, name: str) -> dict[str, Figures]:
    everything = _read(lambda: begin(data, domain), figures_of)
    if "skipped" in everything or not any(answer.generic for answer in begin(data, domain)):
        return {name: everything}
    stating = _read(lambda: [answer for answer in begin(data, domain) if not answer.generic], figures_of)
    return {name: everything, f"{name}_without_generic": stating}


def _with_length(answers: Sequence[Answer]) -> Figures:
    lengths = [float(len(answer.text.split())) for answer in answers]
    by_length = auroc(lengths, [answer.unsupported for answer in answers])
    return {**figures_of(answers), "auroc_of_length_alone": by_length}


def _read(read: Callable[[], list[Answer]], judge: Callable[[Sequence[Answer]], Figures]) -> Figures:
    try:
        answers = read()
    except FileNotFoundError as exc:
        return skipped(f"{exc.filename} is not there")
    return judge(answers)
