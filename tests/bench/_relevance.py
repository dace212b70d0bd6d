"""Measures rankings against judgments by a TREC-compatible library. Used by `retrieval_quality.py`."""

from collections.abc import Mapping

import ir_measures
from ir_measures import AP, R, nDCG

# Scores of documents by query id.
Run = dict[str, dict[str, float]]
_MEASURES = {"ndcg@10": nDCG @ 10, "recall@10": R @ 10, "recall@100": R @ 100, "map": AP}


def measure(qrels: Mapping[str, Mapping[str, int]], run: Mapping[str, Mapping[str, float]]) -> dict[str, float]:
    """Means over the queries that were run; one that found nothing counts 0."""
    judged = [
        ir_measures.Qrel(query, document, grade)
        for query, grades in qrels.items()
        if query in run
        for document, grade in grades.items()
    ]
    ranked = [
        ir_measures.ScoredDoc(query, document, score)
        for query, scores in run.items()
        for document, score in scores.items()
    ]
    found = ir_measures.calc_aggregate(list(_MEASURES.values()), judged, ranked)
    return {name: round(float(found[which]), 4) for name, which in _MEASURES.items()}
