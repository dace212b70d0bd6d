"""Citation precision: the share of citations whose chunk supports the sentence that cites it.

Pure; called by `scoring.py`.
"""

from collections.abc import Sequence

from servicekit.domain.grounding import GROUNDING_VERSION, Grounding, ground
from servicekit.domain.score import Metric, Score, Unmeasured
from services.evaluator.subject import CitedSpan, Subject

CITATION_PRECISION_VERSION = f"{GROUNDING_VERSION}-citation-1"


def score_citation_precision(subject: Subject) -> Score:
    """Supporting citations over all citations, 0 to 1.

    ALCE's citation precision (Gao et al. 2023, "Enabling Large Language Models to Generate Text with
    Citations", section 4), with the lexical support of `servicekit.domain.grounding` in place of an
    entailment model: a citation counts if its chunk alone supports the sentence it stands in.
    """
    metric = Metric.CITATION_PRECISION
    reason = subject.reason_without_answer()
    if reason is None and not subject.citations:
        reason = Unmeasured.NO_CITATIONS
    if reason is None:
        reason = _reason_without_texts(subject)
    if reason is not None:
        return Score.missing(metric, CITATION_PRECISION_VERSION, reason)
    groundings = {
        key: ground(subject.answer, (subject.texts[key],))
        for key in {citation.content_hash for citation in subject.citations}
    }
    supporting = sum(_supports(groundings[citation.content_hash], citation) for citation in subject.citations)
    return Score.measured(metric, CITATION_PRECISION_VERSION, supporting / len(subject.citations))


def _reason_without_texts(subject: Subject) -> Unmeasured | None:
    for citation in subject.citations:
        if citation.content_hash in subject.missing:
            return subject.missing[citation.content_hash]
        if citation.content_hash not in subject.texts:
            return Unmeasured.CHUNK_NOT_FOUND
    return None


def _supports(grounding: Grounding, citation: CitedSpan) -> bool:
    """Whether the sentence that the marker closes is supported; a marker before all sentences opens the first."""
    place = _sentence_of(citation, [sentence.span.start for sentence in grounding.sentences])
    return place is not None and grounding.sentences[place].supported


def _sentence_of(citation: CitedSpan, starts: Sequence[int]) -> int | None:
    if not starts:
        return None
    before = [place for place, start in enumerate(starts) if start < citation.start]
    return before[-1] if before else 0
