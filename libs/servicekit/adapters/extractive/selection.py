"""Chooses the few sentences of the retrieved chunks that answer a question, each with its chunk's number.

Pure; called by `engine.py`. A sentence is worth the question's terms that it holds, weighted by how rare they
are among all sentences, those of its headings counting in part, times a prior that falls with its chunk's rank.
"""

import math
import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise

from servicekit.adapters.extractive.prose import ProseSentence, read_prose
from servicekit.domain.chunk import Chunk
from servicekit.domain.prompt import ContextChunk
from servicekit.domain.sentences import content_terms

MAX_SENTENCES = 4
_MIN_SENTENCES = 2
_MIN_CHUNK_COVERAGE = 0.25
_MIN_SHARE_OF_BEST = 0.5
_SIGNATURE_CREDIT = 0.9
_HEADING_CREDIT = 0.6
_PREVIOUS_CREDIT = 0.35
_CHUNK_CREDIT = 0.25
_RANK_EXPONENT = 0.35
_NEIGHBOUR_BONUS = 0.3
_BIGRAM_BONUS = 0.6
_LEADING_BONUS = 1.3
_REPEAT_CREDIT = 0.35
_FRAME_WEIGHT = 0.3
_LONG_WORDS = 45
# Words that put a question rather than name what it is about.
_FRAME = frozenset(
    content_terms("work happen mean use used good give given make differ difference cause like get explain tell please")
)
_DEPENDENT = re.compile(
    r"^(?:It|This|These|Those|That|They|He|She|Such|Otherwise|However|Thus|Therefore|Then|But|And|Also|In this case|"
    r"In that case|If so|If not|The former|The latter|See|Note that|As above)\b"
)
_HISTORY = re.compile(
    r"^(?:Changed|New|Added|Deprecated|Removed)\b[^.]{0,20}\bversion\b|^See (?:also|section)|^PEP \d+\b"
)
_DEFINES = re.compile(
    r"\b(?:is|are|means|returns?|yields?|creates?|causes?|evaluates?|contains?|must|can|may)\b", re.IGNORECASE
)


@dataclass(frozen=True, slots=True)
class Quote:
    """A chosen sentence and the number its chunk is cited by."""

    number: int
    text: str


@dataclass(frozen=True, slots=True)
class _Candidate:
    order: int
    number: int
    sentence: ProseSentence
    terms: frozenset[str]
    worth: Mapping[str, float]
    prior: float


def choose(question: str, context: Sequence[ContextChunk], *, limit: int = MAX_SENTENCES) -> tuple[Quote, ...]:
    """At most `limit` sentences, in the order of their chunks; none if no chunk says enough of the question."""
    wanted = content_terms(question)
    candidates = _candidates(wanted, context)
    if not wanted or not candidates:
        return ()
    weights = _weights(frozenset(wanted), candidates)
    coverage = _coverage(weights, context)
    if max(coverage.values()) < _MIN_CHUNK_COVERAGE:
        return ()
    candidates = [replace(c, prior=c.prior * (0.5 + 0.5 * coverage[c.number])) for c in candidates]
    chosen = _completed(_choose(candidates, weights, limit), candidates, limit)
    starts = {item.number: item.scored.chunk for item in context}
    chosen = _in_reading_order(chosen, starts)
    return tuple(_quote(candidate, chosen) for candidate in chosen)


def _candidates(wanted: Sequence[str], context: Sequence[ContextChunk]) -> list[_Candidate]:
    found: list[_Candidate] = []
    places = {(i.scored.chunk.document_id, i.scored.chunk.ordinal): i.scored.chunk for i in context}
    for place, item in enumerate(context, start=1):
        chunk = item.scored.chunk
        surroundings = _Surroundings(
            frozenset(content_terms(" ".join((chunk.title, *chunk.heading_path)))),
            frozenset(content_terms(chunk.text)),
        )
        previous: frozenset[str] = frozenset()
        prose = read_prose(
            chunk.text,
            starts_inside=chunk.start > 0,
            above=_above(chunk, places.get((chunk.document_id, chunk.ordinal - 1))),
            heading=chunk.heading_path[-1] if chunk.heading_path else "",
        )
        for sentence in prose:
            said = content_terms(sentence.text)
            terms = frozenset(said)
            worth = _worth(frozenset(wanted), sentence, terms, previous, surroundings)
            bonus = 1 + _BIGRAM_BONUS * _shared_bigrams(wanted, said)
            if sentence.leads and not frozenset(wanted).isdisjoint(
                content_terms(sentence.heading + sentence.signature)
            ):
                bonus *= _LEADING_BONUS
            prior = place**-_RANK_EXPONENT * _readability(sentence) * bonus
            found.append(_Candidate(len(found), item.number, sentence, terms, worth, prior))
            previous = terms
    return found


def _above(chunk: Chunk, before: Chunk | None) -> str:
    """The text of the chunk before, as far as it stands above this one; chunks overlap."""
    return before.text[: chunk.start - before.start] if before and before.start < chunk.start else ""


@dataclass(frozen=True, slots=True)
class _Surroundings:
    """The terms of a chunk's titles, and of all its text, code and tables included."""

    titles: frozenset[str]
    chunk: frozenset[str]


def _worth(
    wanted: frozenset[str],
    sentence: ProseSentence,
    terms: frozenset[str],
    previous: frozenset[str],
    surroundings: _Surroundings,
) -> dict[str, float]:
    """How far each term of the question counts as said by the sentence: 1 in itself, less around it."""
    signature = frozenset(content_terms(sentence.signature))
    above = surroundings.titles | frozenset(content_terms(sentence.heading))
    sources = (
        (terms, 1.0),
        (signature, _SIGNATURE_CREDIT),
        (above, _HEADING_CREDIT),
        (previous, _PREVIOUS_CREDIT),
        (surroundings.chunk, _CHUNK_CREDIT),
    )
    found = {term: [credit for place, credit in sources if term in place] for term in wanted}
    return {term: max(values) for term, values in found.items() if values}


def _shared_bigrams(wanted: Sequence[str], said: Sequence[str]) -> float:
    """The share of the question's neighbouring terms that are neighbours in the sentence too."""
    pairs = set(pairwise(wanted))
    return len(pairs & set(pairwise(said))) / len(pairs) if pairs else 0.0


def _weights(wanted: frozenset[str], candidates: Sequence[_Candidate]) -> dict[str, float]:
    """Each term's share of the question: by its inverse document frequency among the sentences."""
    frequency = Counter(term for candidate in candidates for term in candidate.terms & wanted)
    inverse = {
        term: math.log(1 + len(candidates) / (1 + frequency[term])) * (_FRAME_WEIGHT if term in _FRAME else 1.0)
        for term in wanted
    }
    total = sum(inverse.values())
    return {term: value / total for term, value in inverse.items()}


def _coverage(weights: Mapping[str, float], context: Sequence[ContextChunk]) -> dict[int, float]:
    """The share of the question that each chunk holds, by its number."""
    shares = {}
    for item in context:
        chunk = item.scored.chunk
        held = frozenset(content_terms(" ".join((chunk.title, *chunk.heading_path, chunk.text))))
        shares[item.number] = sum(weight for term, weight in weights.items() if term in held)
    return shares


def _choose(candidates: Sequence[_Candidate], weights: Mapping[str, float], limit: int) -> list[_Candidate]:
    """Greedy: the best first, then what adds most, near to what is there already."""
    chosen: list[_Candidate] = []
    first = 0.0
    while len(chosen) < limit:
        best = max(
            (candidate for candidate in candidates if not _said(candidate, chosen)),
            key=lambda candidate: (_gain(candidate, chosen, weights), -candidate.order),
            default=None,
        )
        if best is None:
            break
        gain = _gain(best, chosen, weights)
        first = first or gain
        if gain <= 0 or gain < _MIN_SHARE_OF_BEST * first:
            break
        chosen.extend(_with_antecedent(best, candidates, chosen, room=limit - len(chosen)))
    return chosen


def _gain(candidate: _Candidate, chosen: Sequence[_Candidate], weights: Mapping[str, float]) -> float:
    """What the candidate adds: terms that are said already count in part, neighbours of the chosen more."""
    said = frozenset(term for other in chosen for term in other.terms)
    value = sum(
        weights[term] * credit * (_REPEAT_CREDIT if term in said else 1.0) for term, credit in candidate.worth.items()
    )
    if any(_near(candidate, other) for other in chosen):
        value += _NEIGHBOUR_BONUS * value
    return value * candidate.prior


def _readability(sentence: ProseSentence) -> float:
    """Below 1 for sentences that read badly alone, or tell of versions; above 1 for early and defining ones."""
    factor = 1.0 + 0.1 / (1 + sentence.position)
    if _HISTORY.match(sentence.text):
        factor *= 0.5
    if _DEPENDENT.match(sentence.text):
        factor *= 0.85
    if sentence.text.endswith(":"):
        factor *= 0.7
    if len(sentence.text.split()) > _LONG_WORDS:
        factor *= 0.85
    if _DEFINES.search(sentence.text):
        factor *= 1.05
    return factor


def _with_antecedent(
    candidate: _Candidate, candidates: Sequence[_Candidate], chosen: Sequence[_Candidate], *, room: int
) -> list[_Candidate]:
    """The candidate, behind the sentence before it where it leans on that one."""
    if room < _MIN_SENTENCES or not _DEPENDENT.match(candidate.sentence.text) or candidate.order == 0:
        return [candidate]
    before = candidates[candidate.order - 1]
    if before.number != candidate.number or _said(before, chosen) or before.sentence.text.endswith(":"):
        return [candidate]
    return [before, candidate]


def _completed(chosen: Sequence[_Candidate], candidates: Sequence[_Candidate], limit: int) -> list[_Candidate]:
    """A sentence that announces a list gets its first items, a lone one its successor."""
    complete = sorted(chosen, key=lambda candidate: candidate.order)
    for candidate in tuple(complete):
        announces = _announces_list(candidate, candidates)
        if not announces and len(complete) >= _MIN_SENTENCES:
            continue
        for follower in candidates[candidate.order + 1 :]:
            fits = follower.sentence.listed if announces else _continues(candidate, follower)
            if len(complete) >= limit or not fits or _said(follower, complete):
                break
            complete.append(follower)
    complete.sort(key=lambda candidate: candidate.order)
    return [c for c in complete if not _announces_nothing(c, complete)] or complete


def _in_reading_order(chosen: Sequence[_Candidate], chunks: Mapping[int, Chunk]) -> list[_Candidate]:
    """Documents by their best chunk, and each document's sentences as they stand in it."""
    best: dict[str, int] = {}
    for candidate in chosen:
        document = chunks[candidate.number].document_id
        best[document] = min(best.get(document, candidate.number), candidate.number)

    def place(candidate: _Candidate) -> tuple[int, int, int]:
        chunk = chunks[candidate.number]
        return best[chunk.document_id], chunk.start, candidate.order

    return sorted(chosen, key=place)


def _continues(candidate: _Candidate, follower: _Candidate) -> bool:
    """Whether the follower is the chunk's next sentence, about the same thing and worth reading on."""
    after = follower.order == candidate.order + 1 and _near(candidate, follower)
    return after and not follower.sentence.text.endswith(":") and not _HISTORY.match(follower.sentence.text)


def _announces_list(candidate: _Candidate, candidates: Sequence[_Candidate]) -> bool:
    following = candidates[candidate.order + 1 : candidate.order + 2]
    return candidate.sentence.text.endswith(":") and any(other.sentence.listed for other in following)


def _announces_nothing(candidate: _Candidate, complete: Sequence[_Candidate]) -> bool:
    """Whether it ends in a colon and nothing of what it announces follows."""
    followed = any(other.order == candidate.order + 1 for other in complete)
    return candidate.sentence.text.endswith(":") and not followed


def _near(candidate: _Candidate, other: _Candidate) -> bool:
    """Whether they are neighbours in a chunk and about the same thing."""
    here, there = candidate.sentence, other.sentence
    same = candidate.number == other.number and (here.heading, here.signature) == (there.heading, there.signature)
    return same and abs(candidate.order - other.order) == 1


def _said(candidate: _Candidate, chosen: Sequence[_Candidate]) -> bool:
    """Whether it, or the same sentence of another chunk, is chosen already."""
    return any(candidate.sentence.text == other.sentence.text for other in chosen)


def _quote(candidate: _Candidate, chosen: Sequence[_Candidate]) -> Quote:
    """The sentence, led by the signature it describes where it is the first about it."""
    signature = candidate.sentence.signature
    first = next(other for other in chosen if other.sentence.signature == signature)
    lead = f"{signature}: " if signature and candidate is first else ""
    return Quote(candidate.number, lead + candidate.sentence.text)
