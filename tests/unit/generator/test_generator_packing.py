"""Packing keeps the window, lets in what is worth most, and reports what it left out."""

import pytest

from servicekit.domain.generation import ModelInfo
from servicekit.domain.prompt import Message, Role
from servicekit.errors import ContextWindowExceeded
from services.generator.context.token_counts import TokenCounts
from services.generator.packing import Prompt
from tests.unit.generator.packing_prompts import WordTokenizer, chunk, exchange, kept, packed_within, text_chunks, words

QUESTION = "Which berth is free at noon ?"


def test_everything_goes_in_where_it_fits() -> None:
    """With room enough nothing is dropped and chunks keep their order."""
    packed = packed_within(Prompt(QUESTION, text_chunks(10, 10), exchange(1, 3, 3)), 10_000)
    assert kept(packed) == ["c1", "c2"]
    assert [item.number for item in packed.context] == [1, 2]
    assert (packed.dropped_chunks, packed.dropped_messages, packed.duplicate_chunks) == (0, 0, 0)
    assert packed.messages[-1].content == QUESTION


def test_tokenizer_is_not_asked_where_bytes_settle_it() -> None:
    """A prompt with fewer bytes than there is room needs no count, and says that its tokens are a bound."""
    tokenizer = WordTokenizer()
    packed = packed_within(Prompt(QUESTION, text_chunks(30), ()), 9_000, tokenizer=tokenizer)
    assert (tokenizer.asked, packed.exact) == (0, False)
    assert packed.input_tokens >= tokenizer.exact(packed.messages)


def test_one_count_is_enough_where_all_fits() -> None:
    """Where bytes do not settle it, one count does; the tokens are then exact."""
    tokenizer = WordTokenizer()
    packed = packed_within(Prompt(QUESTION, text_chunks(100, 100), ()), 300, tokenizer=tokenizer)
    assert (tokenizer.asked, packed.exact, packed.dropped_chunks) == (1, True, 0)
    assert packed.input_tokens == tokenizer.exact(packed.messages)


def test_few_counts_are_enough_where_not_all_fits() -> None:
    """However far a prompt is beyond the window, two counts or three find what fits, and little room is left."""
    for beyond in (12, 40, 100):
        tokenizer = WordTokenizer()
        packed = packed_within(
            Prompt(QUESTION, text_chunks(*[150] * beyond), exchange(1, 9, 40)), 1_516, tokenizer=tokenizer
        )
        assert tokenizer.asked <= 3
        assert 0.9 * 1_500 <= packed.input_tokens <= 1_500


def test_lowest_scores_are_dropped_first() -> None:
    """Where chunks do not all fit, those of the best scores stay, in the order that was given."""
    scores = (0.2, 0.9, 0.1, 0.8)
    chunks = [chunk(rank, f"w{rank} " * 100, score=score) for rank, score in enumerate(scores, start=1)]
    packed = packed_within(Prompt(QUESTION, chunks, ()), 290)
    assert kept(packed) == ["c2", "c4"]
    assert (packed.dropped_chunks, packed.shortened_chunks) == (2, 0)


def test_neighbours_are_worth_less_than_what_was_found() -> None:
    """A chunk that only came along gives way to one that was found further down."""
    chunks = [
        chunk(1, "found " * 100),
        chunk(2, "neighbour " * 100, neighbour=True),
        chunk(3, "second " * 100, score=0.95),
    ]
    assert kept(packed_within(Prompt(QUESTION, chunks, ()), 290)) == ["c1", "c3"]


def test_newest_exchange_stays_before_older_ones() -> None:
    """Exchanges leave whole and oldest first; between them stand the chunks."""
    history = [*exchange(1, 30, 60), *exchange(2, 30, 60), *exchange(3, 5, 10)]
    packed = packed_within(Prompt(QUESTION, text_chunks(80, 80), history), 290)
    assert [message.content for message in packed.messages[1:-1]] == [message.content for message in history[4:]]
    assert kept(packed) == ["c1", "c2"]
    assert packed.dropped_messages == 4


def test_no_exchange_is_left_out_between_others() -> None:
    """Where a newer exchange does not fit, an older one that would does not go in either."""
    history = [*exchange(1, 3, 3), *exchange(2, 300, 300)]
    assert packed_within(Prompt(QUESTION, text_chunks(20), history), 200).dropped_messages == 4


def test_system_messages_of_the_history_always_go_in() -> None:
    """They are the caller's instructions: all else leaves before them, and with them alone there is an error."""
    instruction = Message(Role.SYSTEM, words(60, "must"))
    prompt = Prompt(QUESTION, text_chunks(50), [instruction, *exchange(1, 30, 30)])
    packed = packed_within(prompt, 120)
    assert instruction in packed.messages
    assert (packed.dropped_messages, packed.dropped_chunks - packed.shortened_chunks) == (2, 1)
    with pytest.raises(ContextWindowExceeded, match=r"1 system message\(s\) of the history"):
        packed_within(prompt, 70)


def test_a_giant_does_not_push_out_all_others() -> None:
    """A chunk many times longer than usual is worth less for its length, and comes in shortened."""
    chunks = [chunk(1, words(30_000, "giant")), *text_chunks(0, 200, 200, 200)[1:]]
    packed = packed_within(Prompt(QUESTION, chunks, ()), 2_016)
    assert kept(packed) == ["c1", "c2", "c3", "c4"]
    assert packed.shortened_chunks == 1
    assert packed.input_tokens > 1_800


def test_last_chunk_is_shortened_at_a_sentence() -> None:
    """What does not fit whole goes in as far as a sentence ends; its place in the source is that of the part."""
    chunks = [chunk(1, words(100, "one")), chunk(2, words(200, "two"), start=1_000)]
    packed = packed_within(Prompt(QUESTION, chunks, ()), 260)
    part, whole = packed.context[1].scored.chunk, chunks[1].chunk
    assert (packed.shortened_chunks, packed.dropped_chunks) == (1, 0)
    assert part.text.endswith(".")
    assert whole.text.startswith(part.text)
    assert (part.start, part.end) == (1_000, 1_000 + len(part.text))
    assert part.chunk_id == whole.chunk_id


def test_question_alone_too_long_is_refused() -> None:
    """A question that does not fit by itself names the field, the figures and the fix."""
    with pytest.raises(ContextWindowExceeded, match=r"fit into the 184 tokens .* it has 503: shorten it") as raised:
        packed_within(Prompt("q " * 500, text_chunks(5), ()), 200)
    assert raised.value.field == "question"


def test_room_for_the_answer_is_kept() -> None:
    """What the answer may need is not given to chunks."""
    prompt = Prompt(QUESTION, text_chunks(100), ())
    assert packed_within(prompt, 200, output_tokens=16).shortened_chunks == 0
    assert packed_within(prompt, 200, output_tokens=120).shortened_chunks == 1


def test_estimates_are_trusted_less() -> None:
    """An estimated count leaves a margin that an exact one does not, and is never called exact."""
    prompt = Prompt(QUESTION, text_chunks(270), ())
    guessed = packed_within(prompt, 320, tokenizer=WordTokenizer(estimated=True))
    assert packed_within(prompt, 320).shortened_chunks == 0
    assert (guessed.shortened_chunks, guessed.exact) == (1, False)


async def test_counts_are_remembered() -> None:
    """The same messages are counted once for a model and revision, as long as they are among the last."""
    tokenizer = WordTokenizer()
    counts = TokenCounts(tokenizer.count, remembered=2)
    first, second = ModelInfo("m", "1", 9, 9), ModelInfo("m", "2", 9, 9)
    for _ in range(2):
        assert (await counts.count([Message(Role.USER, "a b")], info=first)).tokens == 5
    assert tokenizer.asked == 1
    await counts.count([Message(Role.USER, "a b")], info=second)
    await counts.count([Message(Role.SYSTEM, "a b")], info=second)
    await counts.count([Message(Role.USER, "a b")], info=first)
    assert tokenizer.asked == 4
