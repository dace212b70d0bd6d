"""How requests are cut into windows, and that the cut depends on the requests alone."""

from datetime import timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.drift_monitor.traffic import ObservedRequest, ObservedValues, Traffic
from services.drift_monitor.windows import SegmentWindows, Window, WindowSizes
from tests.unit.drift_monitor.drift_fakes import SEGMENT, SIZES, START

Requests = list[tuple[int, int, float]]  # number, second, value

requests_strategy = st.lists(
    st.tuples(st.integers(0, 200), st.integers(0, 9_000), st.floats(0, 10)), max_size=80, unique_by=lambda r: r[0]
)


def fill(requests: Requests, sizes: WindowSizes = SIZES) -> SegmentWindows:
    """The windows of these requests, in this order of arrival."""
    windows = SegmentWindows(sizes)
    for number, second, value in requests:
        time = START + timedelta(seconds=second)
        windows.observe(f"r-{number:04}", time=time, values={"question_words": value})
    return windows


def cuts(windows: SegmentWindows) -> list[tuple[tuple[str, ...], bool]]:
    """Each window as its request ids, the reference first."""
    reference = windows.reference()
    found: list[Window] = [*([reference] if reference else []), *windows.currents()]
    return [(tuple(seen.request_id for seen in part.observations), part.sealed) for part in found]


@given(requests=requests_strategy)
def test_no_request_is_in_two_windows(requests: Requests) -> None:
    """Reference and current windows part the requests: none twice, and none lost once there is a reference."""
    windows = fill(requests)
    ids = [request_id for part, _ in cuts(windows) for request_id in part]
    assert len(ids) == len(set(ids))
    if windows.reference():
        assert len(ids) == len(requests)


@given(requests=requests_strategy, data=st.data())
def test_the_order_of_arrival_changes_nothing(requests: Requests, data: st.DataObject) -> None:
    """Any order of the same requests gives the same windows and the same values."""
    other = data.draw(st.permutations(requests))
    assert cuts(fill(requests)) == cuts(fill(other))


@given(requests=requests_strategy, twice=st.lists(st.integers(0, 79)))
def test_a_repeated_request_changes_nothing(requests: Requests, twice: list[int]) -> None:
    """At-least-once delivery gives the windows of exactly once."""
    repeated = requests + [requests[place] for place in twice if place < len(requests)]
    assert cuts(fill(requests)) == cuts(fill(repeated))


@given(requests=requests_strategy, crash=st.integers(0, 80))
def test_a_restart_gives_the_same_windows(requests: Requests, crash: int) -> None:
    """What the store knew at the restart, and what the bus delivers again from an earlier offset, add up."""
    restored = fill(requests[:crash])
    for number, second, value in requests[max(0, crash - 10) :]:
        time = START + timedelta(seconds=second)
        restored.observe(f"r-{number:04}", time=time, values={"question_words": value})
    assert cuts(restored) == cuts(fill(requests))


@given(requests=requests_strategy)
def test_windows_keep_to_their_sizes_and_spans(requests: Requests) -> None:
    """No current window is larger than its size or crosses a span, and all but the last are sealed."""
    currents = fill(requests).currents()
    for part in currents:
        assert 1 <= len(part.observations) <= SIZES.current_size
        assert SIZES.span_of(part.start_time) == SIZES.span_of(part.end_time)
    assert all(part.sealed for part in currents[:-1])


def test_the_reference_is_the_first_requests_by_time() -> None:
    """A late arrival with an early time belongs to the reference."""
    windows = fill([(number, number, 1.0) for number in range(5, 30)])
    windows.observe("r-late", time=START, values={"question_words": 1.0})
    reference = windows.reference()
    assert reference is not None
    assert reference.observations[0].request_id == "r-late"


def test_forgetting_moves_no_cut() -> None:
    """Old whole windows go, the reference and the newest ones stay as they were."""
    sizes = WindowSizes(reference_size=10, current_size=8, min_size=4, kept=16)
    requests = [(number, number, 1.0) for number in range(60)]
    before = cuts(fill(requests, sizes))
    windows = fill(requests, sizes)
    assert windows.forget_oldest() == 40
    assert cuts(windows) == [before[0], *before[-2:]]


def test_a_forgotten_request_does_not_come_back() -> None:
    """A redelivery from before the floor is refused instead of shifting every window behind it."""
    sizes = WindowSizes(reference_size=10, current_size=8, min_size=4, kept=16)
    windows = fill([(number, number, 1.0) for number in range(60)], sizes)
    windows.forget_oldest()
    before = cuts(windows)
    assert not windows.observe("r-0015", time=START + timedelta(seconds=15), values={})
    assert cuts(windows) == before


@pytest.mark.parametrize("sizes", [{"min_size": 1}, {"min_size": 21}, {"reference_size": 5}, {"kept": 39}], ids=str)
def test_sizes_that_contradict_each_other_are_refused(sizes: dict[str, int]) -> None:
    """The message names the size and what it must be."""
    with pytest.raises(ValueError, match=next(iter(sizes))):
        WindowSizes(**sizes)  # type: ignore[arg-type]  # the sizes of this test are all counts


def observed(number: int) -> ObservedRequest:
    """One request of the segment."""
    return ObservedRequest(f"r-{number}", SEGMENT, START + timedelta(seconds=number), {"question_words": 3.0})


@given(order=st.permutations(range(8)))
def test_scores_and_interactions_join_in_any_order(order: list[int]) -> None:
    """A score before its interaction waits for it; both orders end in the same values."""
    traffic = Traffic(SIZES)
    for number in order:
        if number < 4:
            traffic.observe_request(observed(number))
        else:
            traffic.observe_values(ObservedValues(f"r-{number - 4}", "acme", {"groundedness": 0.5}))
    found = {request.request_id: dict(request.values) for request in traffic.requests()}
    assert found == {f"r-{number}": {"question_words": 3.0, "groundedness": 0.5} for number in range(4)}
    assert not list(traffic.waiting())


def test_one_verdict_that_found_something_is_enough() -> None:
    """Several decisions tell of one request; a later allow does not undo an earlier find, whatever their order."""
    for order in ((1.0, 0.0), (0.0, 1.0)):
        traffic = Traffic(SIZES)
        traffic.observe_request(observed(1))
        for value in order:
            traffic.observe_values(ObservedValues("r-1", "acme", {"guardrail_found": value}))
        assert next(traffic.requests()).values["guardrail_found"] == 1.0


def test_another_tenants_score_does_not_join() -> None:
    """Request ids of two tenants never meet."""
    traffic = Traffic(SIZES)
    traffic.observe_request(observed(1))
    traffic.observe_values(ObservedValues("r-1", "globex", {"groundedness": 0.1}))
    assert "groundedness" not in next(traffic.requests()).values


def test_waiting_values_and_segments_are_bounded() -> None:
    """Scores of interactions that never come, and endless routes, do not fill the memory."""
    traffic = Traffic(SIZES, max_segments=1, max_waiting=3)
    for number in range(10):
        traffic.observe_values(ObservedValues(f"r-{number}", "acme", {"groundedness": 0.5}))
    assert len(list(traffic.waiting())) == 3
    traffic.observe_request(observed(1))
    other = ObservedRequest("r-2", type(SEGMENT)("acme", "other"), START, {})
    traffic.observe_request(other)
    assert traffic.refused_segments == 1
    assert traffic.segments() == (SEGMENT,)


@pytest.mark.parametrize("value", [float("nan"), float("inf"), float("-inf")])
def test_a_value_that_is_no_finite_number_is_left_out(value: float) -> None:
    """One absurd score must not keep a window from being judged."""
    traffic = Traffic(SIZES)
    traffic.observe_request(observed(1))
    traffic.observe_values(ObservedValues("r-1", "acme", {"groundedness": value}))
    assert next(traffic.requests()).values == {"question_words": 3.0}
