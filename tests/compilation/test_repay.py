"""When compiling repays itself."""

import pytest

from latentdiff.compilation.repay import SAVED, Planned, compile_seconds

SECONDS = compile_seconds(0)


def test_it_is_not_known_before_three_calls():
    planned = Planned(10**9)
    for _ in range(2):
        planned.add("a", 1.0)
        assert not planned.is_settled("a") and not planned.repays("a", 0)
    planned.add("a", 1.0)
    assert planned.is_settled("a") and planned.repays("a", 0) and not planned.is_settled("b")


@pytest.mark.parametrize(("left", "expected"), [(-1, False), (0, False), (1, True)])
def test_the_saved_time_of_the_calls_that_are_left_is_longer_than_compiling(left, expected):
    """The fastest call counts: the first one warms up."""
    calls = round(SECONDS / SAVED)
    planned = Planned(calls + left + 3)
    for seconds in (5.0, 1.0, 2.0):
        planned.add("a", seconds)
    assert planned.calls == calls + left
    assert planned.repays("a", 0) == expected
    planned.spend()
    assert not planned.repays("a", 0)


def test_large_networks_take_longer():
    assert compile_seconds(872_000_000) == pytest.approx(141, abs=3)
    assert compile_seconds(6_000_000) == pytest.approx(62, abs=3)
