"""Tests of redaction: the right characters go, everything else stays, numbers are consistent."""

from hypothesis import given
from hypothesis import strategies as st

from servicekit.domain.verdict import Action, Span, Surface
from services.guardrail.detectors.catalogue import all_detectors
from services.guardrail.judging import Judge
from services.guardrail.policy_file import default_policy
from services.guardrail.pseudonyms import Pseudonyms
from services.guardrail.redacting import Replaceable, redact

DETECTORS = all_detectors()
JUDGE = Judge(DETECTORS)
POLICY = default_policy(DETECTORS)
PERSONAL = (
    "ada@analytical.org",
    "Ada@Analytical.org",
    "+44 7911 123456",
    "4111 1111 1111 1111",
    "DE89370400440532013000",
    "514-69-0360",
    "106.31.73.20",
    "ghp_" + "a1B2" * 9,
)
WORDS = ("the", "mail", "of", "Zoë", "is", "\u200b", "😀", "[EMAIL_1]", "see\n", "naïve")


def item(start: int, end: int, kind: str) -> Replaceable:
    """A span to replace."""
    return Replaceable(Span(start, end), kind)


def fresh() -> Pseudonyms:
    """Those of a new conversation."""
    return Pseudonyms(digest_key=b"k" * 32)


def redacted(text: str, pseudonyms: Pseudonyms) -> str:
    """The text as CheckInput would give it back."""
    found = JUDGE.assess(Surface.INPUT, text, policy=POLICY)
    return redact(text, found.replaceable, pseudonyms, remember=True)


def test_the_same_value_gets_the_same_number() -> None:
    """Case and separators make no other value; another value gets the next number."""
    text = "A@b.de a@B.de c@d.fr A@b.de"
    found = [item(0, 6, "EMAIL"), item(7, 13, "EMAIL"), item(14, 20, "EMAIL"), item(21, 27, "EMAIL")]
    assert redact(text, found, fresh(), remember=True) == "[EMAIL_1] [EMAIL_1b] [EMAIL_2] [EMAIL_1]"
    assert redact(text, found, fresh(), remember=False) == "[EMAIL_1] [EMAIL_1] [EMAIL_2] [EMAIL_1]"


def test_placeholders_in_the_text_are_not_given_out_again() -> None:
    """A text that already holds [EMAIL_1] does not make somebody else's address look the same."""
    found = [item(10, 16, "EMAIL")]
    assert redact("[EMAIL_1] x@y.de", found, fresh(), remember=True) == "[EMAIL_1] [EMAIL_2]"


def test_overlapping_spans_go_together() -> None:
    """What two detectors share is replaced once, as the longer finding's kind."""
    found = [item(0, 5, "PHONE"), item(3, 12, "CARD"), item(12, 14, "IP")]
    assert redact("0123456789abXY!", found, fresh(), remember=True) == "[CARD_1][IP_1]!"


@given(st.lists(st.sampled_from(WORDS + PERSONAL), max_size=12).map(" ".join))
def test_redaction_hides_all_and_is_idempotent(text: str) -> None:
    """Nothing personal is left, everything else is, and a second redaction changes nothing."""
    pseudonyms = fresh()
    once = redacted(text, pseudonyms)
    assert not any(value in once for value in PERSONAL)
    assert redacted(once, pseudonyms) == once
    assert [word for word in text.split(" ") if word in WORDS] == [
        word for word in once.split(" ") if word in WORDS and (word != "[EMAIL_1]" or "[EMAIL_1]" in text)
    ] or "[EMAIL_1]" in once


@given(st.text(max_size=60), st.lists(st.tuples(st.integers(0, 60), st.integers(0, 20)), max_size=5))
def test_only_the_spans_are_replaced(text: str, places: list[tuple[int, int]]) -> None:
    """Whatever the spans, the characters outside of them stand unchanged and in order."""
    spans = [Span(min(a, len(text)), min(a + b, len(text))) for a, b in places]
    spans = [span for span in spans if span.start < span.end]
    result = redact(text, [Replaceable(span, "X") for span in spans], fresh(), remember=True)
    kept = "".join(char for place, char in enumerate(text) if not any(span.start <= place < span.end for span in spans))
    position = 0
    for char in kept:
        position = result.index(char, position) + 1


@given(st.lists(st.sampled_from(WORDS + PERSONAL), max_size=8).map(" ".join))
def test_verdict_spans_are_places_in_the_text_as_given(text: str) -> None:
    """Every span of a verdict names a piece that holds what was found, zero-width characters and all."""
    for verdict in JUDGE.assess(Surface.INPUT, text, policy=POLICY).verdicts:
        assert verdict.span is not None
        piece = text[verdict.span.start : verdict.span.end]
        assert verdict.action is Action.REDACT
        assert piece
        assert piece == piece.strip()
