"""Keeps what was found in retrieved texts, so that a chunk that is retrieved often is judged once.

In this process's memory; used by `checking.py` from any thread. Holds hashes and verdicts, no text.
"""

import hashlib
from collections import OrderedDict
from threading import Lock

from services.guardrail.judging import Assessment
from services.guardrail.metrics import CACHE
from services.guardrail.policy import PoliciesInForce

Key = tuple[str, str, str]


class RetrievedCache:
    """Assessments by (SHA-256 of the text, rules version, policies in force); least recently used go first."""

    def __init__(self, *, capacity: int) -> None:
        self._capacity = capacity
        self._kept: OrderedDict[Key, Assessment] = OrderedDict()
        self._lock = Lock()

    def get(self, key: Key) -> Assessment | None:
        """What was found, if it is still known."""
        with self._lock:
            assessment = self._kept.get(key)
            if assessment is not None:
                self._kept.move_to_end(key)
        CACHE.labels("miss" if assessment is None else "hit").inc()
        return assessment

    def put(self, key: Key, assessment: Assessment) -> None:
        """Keep it, unless a detector failed: that may not happen again."""
        if not assessment.complete or self._capacity <= 0:
            return
        with self._lock:
            self._kept[key] = assessment
            if len(self._kept) > self._capacity:
                self._kept.popitem(last=False)


def content_key(text: str, *, rules_version: str, in_force: PoliciesInForce) -> Key:
    """The key of a text; its hash is always our own, so that no caller can plant a verdict for another's text."""
    candidate = f"|{in_force.candidate.version}" if in_force.candidate else ""
    return (hashlib.sha256(text.encode()).hexdigest(), rules_version, f"{in_force.policy.version}{candidate}")
