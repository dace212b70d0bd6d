"""The ledger: its marks never claim what is not settled, and never list what was acknowledged."""

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import Bundle, RuleBasedStateMachine, consumes, invariant, rule

from servicekit.events.ledger import Mark, SequenceLedger
from servicekit.events.topics import PRODUCER_REPORTED

T = "binnacle.feedback.recorded.v1"


class LedgerMachine(RuleBasedStateMachine):
    """Sends that are acknowledged, abandoned, spooled, late or given back, in any order, against a plain model."""

    in_flight = Bundle("in_flight")
    abandoned = Bundle("abandoned")
    spooled = Bundle("spooled")

    def __init__(self) -> None:
        super().__init__()
        self.ledger = SequenceLedger()
        self.state: dict[int, dict[int, str]] = {0: {}, 1: {}}

    @rule(target=in_flight, partition=st.integers(0, 1))
    def send(self, partition: int) -> tuple[int, int]:
        """Hand over a record."""
        sequence = self.ledger.assign(T, partition)
        assert sequence == len(self.state[partition]) + 1
        self.state[partition][sequence] = "in flight"
        return partition, sequence

    @rule(partition=st.integers(0, 1))
    def fail_before_sending(self, partition: int) -> None:
        """A record that never left gives its sequence back."""
        sequence = self.ledger.assign(T, partition)
        self.ledger.give_back(T, partition, sequence)

    @rule(sent=consumes(in_flight))
    def acknowledge(self, sent: tuple[int, int]) -> None:
        """The broker has it."""
        self.ledger.acknowledge(T, *sent)
        self.state[sent[0]][sent[1]] = "acknowledged"

    @rule(target=abandoned, sent=consumes(in_flight))
    def abandon(self, sent: tuple[int, int]) -> tuple[int, int]:
        """The caller was told that it is not recorded."""
        self.ledger.abandon(T, *sent)
        self.state[sent[0]][sent[1]] = "abandoned"
        return sent

    @rule(sent=consumes(abandoned))
    def acknowledge_late(self, sent: tuple[int, int]) -> None:
        """It arrived after all; abandoning it once more changes nothing."""
        self.ledger.acknowledge(T, *sent)
        self.ledger.abandon(T, *sent)
        self.state[sent[0]][sent[1]] = "acknowledged"

    @rule(target=spooled, sent=consumes(in_flight))
    def spool(self, sent: tuple[int, int]) -> tuple[int, int]:
        """It is durable on disk."""
        self.ledger.spool(T, *sent)
        self.ledger.abandon(T, *sent)
        self.state[sent[0]][sent[1]] = "spooled"
        return sent

    @rule(sent=consumes(spooled))
    def drain(self, sent: tuple[int, int]) -> None:
        """Kafka has it now, or its first copy arrived after all; spooling it once more changes nothing."""
        self.ledger.acknowledge(T, *sent)
        self.ledger.spool(T, *sent)
        self.state[sent[0]][sent[1]] = "acknowledged"

    @invariant()
    def marks_tell_the_truth(self) -> None:
        """Up to the mark all is acknowledged but what it names, and the mark is as high as it can be."""
        marks = {mark.partition: mark for mark in self.ledger.marks()}
        for partition, state in self.state.items():
            settled = 0
            while state.get(settled + 1) not in (None, "in flight"):
                settled += 1
            expected = tuple(n for n in range(1, settled + 1) if state[n] == "abandoned")
            if settled:
                mark = marks[partition]
                spooled = [n for first, last in mark.spooled for n in range(first, last + 1)]
                assert mark == Mark(T, partition, settled, expected, mark.spooled)
                assert spooled == [n for n in range(1, settled + 1) if state[n] == "spooled"]
            else:
                assert partition not in marks

    @invariant()
    def in_flight_is_counted(self) -> None:
        """What is neither acknowledged nor abandoned nor spooled is in flight."""
        open_now = [one for state in self.state.values() for one in state.values() if one == "in flight"]
        assert self.ledger.in_flight() == len(open_now)


TestLedgerMachine = LedgerMachine.TestCase
TestLedgerMachine.settings = settings(max_examples=60, stateful_step_count=40, deadline=None)


def test_slow_send_holds_the_mark_back() -> None:
    """What comes after an open send is not claimed until that one is settled."""
    ledger = SequenceLedger()
    for _ in range(3):
        ledger.assign(T, 0)
    ledger.acknowledge(T, 0, 1)
    ledger.acknowledge(T, 0, 3)
    assert ledger.marks() == (Mark(T, 0, 1),)
    ledger.abandon(T, 0, 2)
    assert ledger.marks() == (Mark(T, 0, 3, (2,)),)


def test_spooled_sequences_are_accepted_and_named_in_spans() -> None:
    """The mark covers what is on disk and says which; an acknowledgement takes it off the list."""
    ledger = SequenceLedger()
    for sequence in range(1, 6):
        ledger.assign(T, 0)
        ledger.spool(T, 0, sequence)
    assert ledger.marks() == (Mark(T, 0, 5, (), ((1, 5),)),)
    ledger.acknowledge(T, 0, 1)
    ledger.acknowledge(T, 0, 3)
    assert ledger.marks() == (Mark(T, 0, 5, (), ((2, 2), (4, 5))),)


def test_spooled_beyond_an_open_send_is_not_claimed_yet() -> None:
    """A span ends at the mark."""
    ledger = SequenceLedger()
    for _ in range(3):
        ledger.assign(T, 0)
    ledger.spool(T, 0, 1)
    ledger.spool(T, 0, 3)
    assert ledger.marks() == (Mark(T, 0, 1, (), ((1, 1),)),)


def test_reports_do_not_count_themselves() -> None:
    """The topic of the reports has sequences and no mark."""
    ledger = SequenceLedger()
    ledger.acknowledge(PRODUCER_REPORTED, 0, ledger.assign(PRODUCER_REPORTED, 0))
    assert ledger.marks() == ()


def test_only_the_newest_open_sequence_can_be_given_back() -> None:
    """A sequence with a later one after it, or a settled one, would leave a hole or a lie."""
    ledger = SequenceLedger()
    first = ledger.assign(T, 0)
    second = ledger.assign(T, 0)
    with pytest.raises(ValueError, match="newest"):
        ledger.give_back(T, 0, first)
    ledger.acknowledge(T, 0, second)
    with pytest.raises(ValueError, match="newest"):
        ledger.give_back(T, 0, second)


def test_settling_what_was_never_assigned_is_an_error() -> None:
    """A sequence out of thin air is a bug of the caller."""
    ledger = SequenceLedger()
    ledger.assign(T, 0)
    with pytest.raises(ValueError, match="never assigned"):
        ledger.acknowledge(T, 0, 2)
