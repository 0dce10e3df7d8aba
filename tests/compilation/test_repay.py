"""When compiling repays itself."""

import pytest

from latentdiff.compilation.repay import SAVED, PlannedCalls, compile_seconds

SECONDS = compile_seconds(0)


def test_it_is_not_known_before_three_calls():
    planned = PlannedCalls(10**9)
    for _ in range(2):
        planned.add("a", 1.0)
        assert not planned.is_settled("a") and not planned.repays("a", 0)
    planned.add("a", 1.0)
    assert planned.is_settled("a") and planned.repays("a", 0) and not planned.is_settled("b")


@pytest.mark.parametrize(("left", "expected"), [(-1, False), (0, False), (1, True)])
def test_the_saved_time_of_the_calls_that_are_left_is_longer_than_compiling(left, expected):
    """The fastest call counts: the first one warms up."""
    calls = round(SECONDS / SAVED)
    planned = PlannedCalls(calls + left + 3)
    for seconds in (5.0, 1.0, 2.0):
        planned.add("a", seconds)
    assert planned.calls == calls + left
    assert planned.repays("a", 0) == expected
    planned.spend()
    assert not planned.repays("a", 0)


@pytest.mark.parametrize(("left", "expected"), [(-1, False), (0, False), (3, True)])
def test_of_kinds_in_turn_each_counts_its_share_of_the_calls_that_are_left(left, expected):
    """Feature caching at an interval of 3: a third of the calls is full."""
    calls = 3 * round(SECONDS / SAVED)
    planned = PlannedCalls(calls + left + 7)
    for number in range(7):
        planned.add("reused" if number % 3 else "full", 1.0)
    assert planned.calls == calls + left
    assert planned.repays("full", 0) == expected


def test_large_networks_take_longer():
    assert compile_seconds(872_000_000) == pytest.approx(141, abs=3)
    assert compile_seconds(6_000_000) == pytest.approx(62, abs=3)
