"""The words of a question that a full-text search is asked for. Pure; called by `searching.py`.

Stores know fewer stop words than questions have: "what", "how", "does" and "can" are rare in the texts of a corpus, so
that BM25 takes them for telling. Left out of the query, nDCG@10 of the hybrid went from .4297 to .4341 on Cranfield,
from .8831 to .8945 on MTRAG's turns and from .9917 to .9920 on HaluEval's questions (`tests.bench.retrieval_quality`).
"""

import re

from servicekit.domain.sentences import STOP_WORDS

_WORD = re.compile(r"[^\W_]+(?:['’][^\W_]+)*")  # noqa: RUF001  # an apostrophe as people type it


def keywords(query: str) -> str:
    """The query without its stop words; the whole of it, where it has no others.

    A word in capitals stays, as in "WHO" or "IT", unless all of them are; signs stay, for the store to read.
    """
    shouted = query.isupper()

    def kept(match: re.Match[str]) -> str:
        word = match.group()
        is_name = word.isupper() and len(word) > 1 and not shouted
        return "" if word.lower() in STOP_WORDS and not is_name else word

    left = _WORD.sub(kept, query)
    return " ".join(left.split()) if _WORD.search(left) else query
