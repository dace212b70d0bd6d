"""Streamed checks: what is told in which order, late blocks, ends of every kind, one decision each."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import aclosing

import pytest

from servicekit.domain.verdict import Action, Span
from servicekit.errors import BackendUnavailable, InvalidRequest
from services.guardrail.policy import OnFailure, Policy
from services.guardrail.redacting import Found, Replaceable
from services.guardrail.streaming.streamed import EndedStream, FoundVerdicts, ReleasedText, StreamedText, StreamStart
from tests.unit.guardrail.guardrail_fakes import ToldDetector
from tests.unit.guardrail.stream_fakes import CONTEXT, Stand, Streamed, WordDetector, asking

EMAIL = "ada@analytical.org"


async def test_an_address_in_three_tokens_is_redacted_and_told_before_its_text() -> None:
    """Places are those in all the text; the pieces stand for all of it; one decision holds no text."""
    async with Stand() as stand:
        streamed = await stand.stream(["Write to ada", "@analyt", "ical.org, please", "."])
    assert streamed.text == "Write to [EMAIL_1], please."
    assert streamed.source_chars == len(f"Write to {EMAIL}, please.")
    (verdict,) = streamed.verdicts
    assert (verdict.detector, verdict.span) == ("pii.email", Span(9, 9 + len(EMAIL)))
    assert isinstance(streamed.events[0], FoundVerdicts)
    assert (streamed.ended.action, streamed.ended.policy_version) == (Action.REDACT, verdict.policy_version)
    (decision,) = stand.recorded.decisions
    assert (decision.action, decision.text_chars, decision.verdicts) == (Action.REDACT, 36, (verdict,))
    assert EMAIL not in str(decision)


async def test_a_late_block_ends_the_stream_behind_what_was_released() -> None:
    """A detector that reads for meaning blocks a sentence that was shown; nothing more is released."""
    word = WordDetector("words", "awful", redacts=False)
    policy = Policy("p", {"words": asking(Action.BLOCK)})
    seen = asyncio.Event()
    streamed = Streamed()
    async with Stand([word], policy) as stand:
        async with aclosing(
            stand.events(["Fine so far. ", "An awful thing. ", "More ", "and ", "more ", seen, "text."])
        ) as events:
            async for event in events:
                streamed.events.append(event)
                if isinstance(event, EndedStream):
                    seen.set()
        (decision,) = stand.recorded.decisions
    assert streamed.text.startswith("Fine so far. An awful thing. ")
    assert "text." not in streamed.text
    assert streamed.ended.action is Action.BLOCK
    assert streamed.verdicts[-1].span == Span(16, 21)
    assert decision.action is Action.BLOCK


async def test_a_detector_of_meaning_holds_nothing_back() -> None:
    """While a sentence is judged, text behind it goes on; its verdict is told when it is there."""
    word = WordDetector("words", "odd", redacts=False)
    word.may_answer.clear()
    policy = Policy("p", {"words": asking(Action.FLAG)})
    kinds: list[str] = []
    texts = ["An odd start. ", "Then ", "more ", "words."]
    async with Stand([word], policy) as stand, aclosing(stand.events(texts)) as events:
        async for event in events:
            kinds.append(type(event).__name__)
            if isinstance(event, ReleasedText):
                word.may_answer.set()
    assert kinds[0] == "ReleasedText"
    assert kinds.count("FoundVerdicts") == 1


async def test_what_blocks_before_release_is_never_seen() -> None:
    """A detector of what must not be seen at all judges first."""
    word = WordDetector("secret.word", "hush", redacts=True)
    async with Stand([word], Policy("p", {"secret.word": asking(Action.BLOCK)})) as stand:
        streamed = await stand.stream(["All is well. ", "hu", "sh ", "now."])
    assert "hu" not in streamed.text
    assert streamed.ended.action is Action.BLOCK


async def test_detectors_of_the_whole_are_asked_once_about_all_of_it() -> None:
    """At the end, and with everything that was sent."""
    whole = WordDetector("output_schema", "x", redacts=False)
    async with Stand([whole], Policy("p", {"output_schema": asking(Action.FLAG)})) as stand:
        streamed = await stand.stream(["One. ", "Two x. ", "Three."])
    assert whole.texts == ["One. Two x. Three."]
    assert [verdict.span for verdict in streamed.verdicts] == [Span(9, 10)]


async def test_a_leak_longer_than_any_window_is_found_at_the_end() -> None:
    """What only all of the text shows blocks late; a leak that a window shows blocks before anybody sees it."""
    leak = WordDetector("leak", "one" + " and so on" * 60 + " two", redacts=False)
    shown = asyncio.Event()
    streamed = Streamed()
    texts = ["one", *[" and so on"] * 59, shown, " and so on", " two", ". The end."]
    policy = Policy("p", {"leak": asking(Action.BLOCK)})
    async with Stand([leak], policy) as stand, aclosing(stand.events(texts)) as events:
        async for event in events:
            streamed.events.append(event)
            shown.set()
    assert "one and so on" in streamed.text
    assert streamed.ended.action is Action.BLOCK


async def test_groundedness_is_told_at_the_end() -> None:
    """Support of all the answer, and its unsupported sentence, by the chunks given at the start."""
    start = StreamStart(CONTEXT, chunk_texts=("The dict keeps insertion order since Python 3.7.",))
    async with Stand() as stand:
        streamed = await stand.stream(["The dict keeps ", "insertion order since Python 3.5."], start=start)
    assert streamed.ended.groundedness is not None
    assert [verdict.detector for verdict in streamed.verdicts] == ["groundedness"]


@pytest.mark.parametrize(("on_failure", "action"), [(OnFailure.OPEN, Action.FLAG), (OnFailure.CLOSED, Action.BLOCK)])
async def test_a_detector_that_fails_is_decided_by_the_policy_and_told_once(
    on_failure: OnFailure, action: Action
) -> None:
    """Open: the text goes on; closed: nothing is released. However many pieces it failed for, one verdict."""
    broken = ToldDetector("pii.x", RuntimeError("broken"))
    policy = Policy("p", {"pii.x": asking(Action.REDACT, on_failure=on_failure)})
    async with Stand([broken], policy) as stand:
        streamed = await stand.stream([f"word{place} " for place in range(9)])
    assert [verdict.rule for verdict in streamed.verdicts] == ["pii.x.failed"]
    assert streamed.ended.action is action
    assert bool(streamed.text) is (action is Action.FLAG)


async def test_a_policy_changed_meanwhile_applies_from_the_next_stream() -> None:
    """The stream keeps what it began with."""
    word = WordDetector("pii.word", "hush", redacts=True)
    began = asyncio.Event()
    async with Stand([word], Policy("p", {"pii.word": asking(Action.REDACT)})) as stand:
        pieces: list[str] = []
        async with aclosing(stand.events(["So it ", began, "hush ", "is."])) as events:
            async for event in events:
                if isinstance(event, ReleasedText):
                    pieces.append(event.text)
                    stand.policies.policy = Policy("p", {"pii.word": asking(Action.FLAG)})
                    began.set()
        following = await stand.stream(["So it ", "hush ", "is."])
    assert "".join(pieces) == "So it [WORD_1] is."
    assert following.text == "So it hush is."
    first, second = stand.recorded.decisions
    assert first.policy_version != second.policy_version


async def test_a_caller_that_goes_leaves_a_decision_and_no_task() -> None:
    """What was found by then is recorded once; the reader of its texts is ended."""
    never = asyncio.Event()
    async with Stand() as stand:
        before = asyncio.all_tasks()
        async with aclosing(stand.events([f"Ask {EMAIL} now. ", "And ", never])) as events:
            assert isinstance(await anext(events), FoundVerdicts)
        assert asyncio.all_tasks() == before
        (decision,) = stand.recorded.decisions
    assert decision.action is Action.REDACT


async def test_a_stream_that_is_cancelled_leaves_a_decision() -> None:
    """As when its deadline is over."""
    never = asyncio.Event()
    async with Stand() as stand:
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.2):
                await stand.stream([f"Ask {EMAIL} now. ", "And ", never])
        assert len(stand.recorded.decisions) == 1


async def test_texts_that_break_off_release_nothing_of_what_was_held() -> None:
    """Without a final text the stream ends with what was free."""
    async with Stand() as stand:
        streamed = await stand.stream(["One two ", "thr"], final=False)
    assert streamed.text == "One two "
    assert len(stand.recorded.decisions) == 1


async def test_an_error_of_the_texts_is_raised_and_recorded() -> None:
    """What the caller did wrong ends the stream with that error."""

    async def wrong() -> AsyncIterator[StreamedText]:
        yield StreamedText("One ")
        raise InvalidRequest("two finals")

    async with Stand() as stand:
        checking = stand.checks.check(StreamStart(CONTEXT), wrong(), left_s=lambda: 5.0)
        with pytest.raises(InvalidRequest):
            async with aclosing(checking) as events:
                [event async for event in events]
        assert len(stand.recorded.decisions) == 1


async def test_a_decision_that_cannot_be_recorded_fails_the_stream() -> None:
    """No end is told."""
    async with Stand() as stand:
        stand.recorded.error = BackendUnavailable("full", reason="EVENT_NOT_RECORDED")
        events = stand.events(["Hello there."])
        assert isinstance(await anext(events), ReleasedText)
        with pytest.raises(BackendUnavailable):
            await anext(events)


async def test_values_come_back_for_placeholders_written_token_by_token() -> None:
    """A placeholder is one piece; what nobody typed stays; who does not ask gets none."""
    async with Stand() as stand:
        place = Replaceable(Span(5, 5 + len(EMAIL)), "EMAIL")
        typed = (Found(f"I am {EMAIL}", (place,)),)
        await stand.guardrail._redactor.redact(typed, CONTEXT.owner, remember=True)
        tokens = ["You are ", "[", "EMAIL", "_1", "], not ", "[PHONE_7]."]
        restored = await stand.stream(tokens, start=StreamStart(CONTEXT, restore=True))
        plain = await stand.stream(tokens)
    assert (restored.text, restored.restored) == (
        "You are [EMAIL_1], not [PHONE_7].",
        f"You are {EMAIL}, not [PHONE_7].",
    )
    assert plain.restored == plain.text


async def test_a_placeholder_that_the_model_wrote_is_not_given_out_behind_it() -> None:
    """What the answer's own redaction gives out cannot be mistaken for it."""
    async with Stand() as stand:
        streamed = await stand.stream(["See [EMAIL_1]. ", "Ask ", EMAIL, " now."])
    assert streamed.text == "See [EMAIL_1]. Ask [EMAIL_2] now."


async def test_two_hundred_streams_at_once_come_out_whole() -> None:
    """Each its own text, redacted, with one decision; streams wait for their turn rather than fail."""
    async with Stand() as stand:
        tokens = ["Ask ", "ada", "@analytical", ".org ", "or ", "call ", "+44 20 ", "7946 ", "0958 ", "now."]
        many = await asyncio.gather(*(stand.stream(tokens) for _ in range(200)))
    assert {streamed.text for streamed in many} == {"Ask [EMAIL_1] or call [PHONE_1] now."}
    assert len(stand.recorded.decisions) == 200


async def test_many_findings_are_told_to_the_bound_and_all_acted_upon() -> None:
    """At most 200 verdicts in a stream."""
    async with Stand() as stand:
        streamed = await stand.stream([f"a{place}@analytical.org " for place in range(300)])
    assert len(streamed.verdicts) <= 200
    assert "@" not in streamed.text
    (decision,) = stand.recorded.decisions
    assert len(decision.verdicts) == 200
