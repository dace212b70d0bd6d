"""Which offset may be committed, whatever the order of acknowledgements."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from binnacle_client.events.window import Window


@st.composite
def _histories(draw: st.DrawFn) -> tuple[list[int], list[int]]:
    """Offsets of a log with holes, and some of them in any order, some twice."""
    offsets = sorted(draw(st.sets(st.integers(0, 60), min_size=1, max_size=20)))
    return offsets, draw(st.lists(st.sampled_from(offsets), max_size=40))


@given(_histories())
def test_position_is_the_first_unacknowledged(history: tuple[list[int], list[int]]) -> None:
    """After each acknowledgement: nothing unacknowledged lies before the position, and it is as high as that allows."""
    offsets, acknowledged = history
    window = Window(offsets[0])
    for offset in offsets:
        window.hand_out(offset)
    done: set[int] = set()
    for offset in acknowledged:
        before = window.position
        window.acknowledge(offset)
        done.add(offset)
        left = [one for one in offsets if one not in done]
        assert window.position == (left[0] if left else offsets[-1] + 1)
        assert window.position >= before
        assert window.unacknowledged == len(left)
        assert len(window) == sum(one >= window.position for one in offsets)


def test_before_the_first_event_the_position_is_the_start() -> None:
    """A window that handed out nothing commits nothing new."""
    window = Window(17)
    assert (window.position, window.committed, len(window)) == (17, 17, 0)


def test_only_what_was_handed_out_can_be_acknowledged() -> None:
    """An offset from elsewhere is a mistake of the caller's, and changes nothing."""
    window = Window(0)
    window.hand_out(0)
    with pytest.raises(ValueError, match="was not handed out"):
        window.acknowledge(1)
    assert window.position == 0


def test_offsets_only_grow() -> None:
    """The same offset is not handed out twice."""
    window = Window(0)
    window.hand_out(3)
    with pytest.raises(ValueError, match="in order"):
        window.hand_out(3)
