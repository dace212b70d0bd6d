"""Budgets: what is left, shared out, on a clock that the test moves."""

import math

from servicekit.rpc.deadline import Budget, current_budget, within
from servicekit.testing.clocks import FakeClock


def test_budget_runs_out() -> None:
    """What remains shrinks with the clock and never goes below nothing."""
    clock = FakeClock()
    budget = Budget.from_remaining(10, clock)
    clock.advance(4)
    assert (budget.remaining_s(), budget.spent_s(), budget.expired) == (6, 4, False)
    clock.advance(7)
    assert (budget.remaining_s(), budget.expired) == (0, True)


def test_share_is_of_what_is_left() -> None:
    """A stage gets a fraction of the rest, or the rest without a reserve."""
    clock = FakeClock()
    budget = Budget.from_remaining(10, clock)
    clock.advance(5)
    assert budget.share(0.5).remaining_s() == 2.5
    assert budget.less(1).remaining_s() == 4
    assert budget.less(9).remaining_s() == 0


def test_endless_budget_has_no_timeout() -> None:
    """A subscription's budget never ends, and gives gRPC and asyncio None."""
    budget = Budget.from_remaining(math.inf)
    assert not budget.expired
    assert budget.timeout_s() is None
    assert budget.share(0.5).timeout_s() is None


def test_stage_sees_its_own_budget() -> None:
    """Inside `within` the stage's budget rules, afterwards the request's."""
    outer = Budget.from_remaining(10)
    with within(outer):
        with within(outer.share(0.1)) as inner:
            assert current_budget() is inner
        assert current_budget() is outer
    assert current_budget() is None
