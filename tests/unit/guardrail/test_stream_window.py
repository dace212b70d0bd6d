"""However an answer is cut into tokens, what is released is what redacting the whole of it gives."""

import functools
import re
from collections.abc import Sequence
from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from servicekit.domain.verdict import Action, Surface
from services.guardrail.detectors.catalogue import all_detectors
from services.guardrail.judging import Assessment, Judge
from services.guardrail.policy import Policy
from services.guardrail.policy_file import default_policy
from services.guardrail.pseudonyms import Pseudonyms
from services.guardrail.redacting import redact
from services.guardrail.streaming.holding import LONGEST_HELD, free_end
from services.guardrail.streaming.roles import Role, roles_of
from services.guardrail.streaming.window import Window

# Made up; each of them is found by one detector.
EMAIL = "ada.lovelace@analytical-engine.org"
CARD = "4539 5787 6362 1486"
PHONE = "+44 20 7946 0958"
PHONE_IN_GROUPS = "(541) 754-3010 ext. 22"
IBAN = "GB82 WEST 1234 5698 7654 32"
SSN = "219-09-9998"
ADDRESS = "93.184.216.34"
KEY = "AKIA" + "QWERTYUIOPASDFGH"
TOKEN = "ghp_" + "abcdefghijklmnopqrstuvwxyz0123456789"
PRIVATE_KEY = (
    "-----BEGIN RSA PRIVATE KEY-----\n"
    + "MIIEpAIBAAKCAQEA0Z3VS5JJcds3xfn/ygWyF8PbnGy0AHB7MhgHcTz6sE2I2yPB\n" * 3
    + "aGkXnA==\n-----END RSA PRIVATE KEY-----"
)
BIRTH = "12th of March 1980"
PASSPORT = "AB 1234567"
ZONE = "P<UTOERIKSSON<<ANNA<MARIA<<<<<<<<<<<<<<<<<<<\nL898902C36UTO7408122F1204159ZE184226B<<<<<10"
INSURANCE = "QQ 12 34 56 C"
LICENCE = "MORGA753116SM9IJ 35"
ACCOUNT = "12 345 678"
ANNOUNCED_BEHIND = "020 7946 0958 (office)"
NAME = "Ada de Lovelace"
ANNOUNCED = (
    f"My date of birth is {BIRTH}. ", f"my passport no. is {PASSPORT} ", f"zone: {ZONE} ", f"NI number {INSURANCE} ",
    f"driving licence {LICENCE}, ", f"account number: {ACCOUNT}. ", f"at {ANNOUNCED_BEHIND} today ",
    f"Dr. {NAME} came. ", "born on March 3, 1975 ", "My name is Grace Hopper and ",
)  # fmt: skip
THINGS = (EMAIL, CARD, PHONE, PHONE_IN_GROUPS, IBAN, SSN, ADDRESS, KEY, TOKEN, PRIVATE_KEY)
PROSE = (
    "Write to ", "call me at ", "in 2024 ", "(see [1]). ", "naïve ", "请联系\uff0c", "x", ", ", ".\n", "- ",
    "AWS ", "version 3.14.2 ", "the key is ", "begin ", "12, 34 ", "AB12 ", "“quoted” ", "\u200b", " ",
    "it's ", "and/or ", "@", "+",
)  # fmt: skip


@functools.cache
def judge() -> tuple[Judge, Policy]:
    """The shipped detectors of what can be replaced, and a policy that has all of it replaced."""
    detectors = [detector for detector in all_detectors() if Role.EARLY in roles_of(detector) and detector.redacts]
    packaged = default_policy(all_detectors()).detectors
    rules = {one.id: replace(packaged[one.id], actions={Surface.OUTPUT: Action.REDACT}) for one in detectors}
    return Judge(detectors), Policy("test", rules)


def assessed(text: str) -> Assessment:
    """What they find in an answer."""
    detectors, policy = judge()
    return detectors.assess(Surface.OUTPUT, text, policy=policy)


def pseudonyms() -> Pseudonyms:
    """Placeholders of a fresh conversation."""
    return Pseudonyms(digest_key=b"k" * 32)


def whole(text: str) -> str:
    """The answer redacted at once."""
    return redact(text, assessed(text).replaceable, pseudonyms(), remember=False)


def in_pieces(tokens: Sequence[str]) -> tuple[str, list[str]]:
    """The answer redacted token by token, and what had been released behind each."""
    window, given_out = Window(), pseudonyms()
    released: list[str] = []
    for place, token in enumerate(tokens):
        window.add(token)
        final = place == len(tokens) - 1
        view = window.view(final=final)
        piece = view and window.release(view, assessed(view.text).replaceable)
        released.append(redact(piece.text, piece.replaceable, given_out, remember=False) if piece else "")
    assert window.released == window.arrived
    return "".join(released), released


def cut(text: str, places: Sequence[int]) -> list[str]:
    """The text in tokens that end at these places."""
    ends = [*sorted({place for place in places if 0 < place < len(text)}), len(text)]
    return [text[start:end] for start, end in zip([0, *ends], ends, strict=False)]


@settings(max_examples=120, deadline=None)
@given(st.data())
def test_any_cutting_gives_what_the_whole_gives(data: st.DataObject) -> None:
    """Prose and things in any order, cut anywhere: same text, nothing lost, nothing doubled, nothing leaked."""
    parts = data.draw(st.lists(st.sampled_from((*THINGS, *ANNOUNCED, *PROSE)), min_size=1, max_size=8))
    text = "".join(part + data.draw(st.sampled_from(("", " ", ". "))) for part in parts)
    places = data.draw(st.lists(st.integers(1, max(1, len(text))), max_size=40))
    assert in_pieces(cut(text, places))[0] == whole(text)


@pytest.mark.parametrize("thing", THINGS, ids=range(len(THINGS)))
def test_no_cutting_of_a_thing_into_three_leaks_a_character(thing: str) -> None:
    """At every pair of places, with words around it: a placeholder comes out and no part of the thing."""
    before, after = "My number is ", " and that is all there is to say about it."
    expected = whole(before + thing + after)
    assert re.fullmatch(rf"{before}-*\[[A-Z]+_1\]{after}", expected)
    step = max(1, len(thing) // 12)
    for first in range(0, len(thing), step):
        for second in range(first + 1, len(thing) + 1, step):
            tokens = [before, thing[:first], thing[first:second], thing[second:], after]
            assert in_pieces(tokens)[0] == expected


@pytest.mark.parametrize("thing", [*THINGS, *ANNOUNCED], ids=range(len(THINGS) + len(ANNOUNCED)))
def test_a_thing_comes_out_whole_character_by_character(thing: str) -> None:
    """The worst tokenizer there is, the thing at the answer's end."""
    text = f"It is {thing}"
    assert in_pieces(list(text))[0] == whole(text)


def test_prose_is_held_by_one_word() -> None:
    """Behind each token all words but the last have gone."""
    tokens = ["The", " quick", " brown", " fox", " jumps", " away", "."]
    assert in_pieces(tokens)[1] == ["", "The ", "quick ", "brown ", "fox ", "jumps ", "away."]


@pytest.mark.parametrize(
    ("text", "held"),
    [
        ("Please call 541 754 ", "call 541 754 "),
        ("Please call 541 754 3010 ex", "call 541 754 3010 ex"),
        ("Mail ada@exam", "ada@exam"),
        ("Mail [EMAIL", "[EMAIL"),
        ("It is GB82 WEST 12", "is GB82 WEST 12"),
        ("-----BEGIN RSA PRI", "-----BEGIN RSA PRI"),
        ("-----BEGIN PRIVATE KEY-----\nabcd\n", "-----BEGIN PRIVATE KEY-----\nabcd\n"),
        ("A file begins with BEGIN PRIVATE KEY and that is how one sees what it is", "is"),
        ("in 2024 the", "in 2024 the"),
        ("in 2024 the ", "the "),
        ("one, two, three,", ""),
        ("请联系\uff0c我们", "我们"),
    ],
)
def test_what_can_still_grow_is_held(text: str, held: str) -> None:
    """From the beginning of what might become a finding, and not from further back."""
    assert text[free_end(text) :] == held


def test_a_run_without_end_is_not_held_for_ever() -> None:
    """A megabyte without a blank is held to the bound; the place that it costs does not grow."""
    window = Window()
    for _ in range(40):
        window.add("a1" * 1_000)
        view = window.view(final=False)
        if view is not None:
            window.release(view, ())
        assert window.arrived - window.released <= LONGEST_HELD + 2_000
