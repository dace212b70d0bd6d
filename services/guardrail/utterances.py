"""Says in which parts a text's tone is judged: by the sentence, and as a whole where it is short.

Pure; used by `detectors/toxicity.py` and by its training, so that thresholds hold for what is served.
"""

from servicekit.domain.verdict import Span
from services.guardrail.pieces import pieces

SHORT_CHARS = 400
"""Up to this length a text is also judged as a whole: an insult may be spread over sentences."""


def utterances(text: str) -> tuple[Span, ...]:
    """The text's sentences; of a short text of several sentences, first the whole."""
    sentences = pieces(text)
    whole = Span(0, len(text))
    if len(text) <= SHORT_CHARS and len(sentences) > 1:
        return (whole, *sentences)
    return sentences
