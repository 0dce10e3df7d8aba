"""Turns, medians and ratios, by a clock that the test moves."""

import pytest
import torch

from benchmarks.measuring import Settings, Spread, in_process, machine, ratios, rows_of, take_turns


class Clock:
    """Time that passes where the sides say so."""

    def __init__(self):
        self.now, self.called = 0.0, []

    def side(self, name, *seconds):
        left = list(seconds)

        def work():
            self.called.append(name)
            self.now += left.pop(0)

        return work


def test_every_side_is_called_once_a_round_and_another_begins_each():
    clock = Clock()
    sides = {name: clock.side(name, 1, 1, 1, 1) for name in "abc"}
    take_turns(sides, 4, lambda: clock.now)
    assert "".join(clock.called) == "abcbcacababc"


def test_seconds_are_those_of_the_side_and_of_the_device_that_is_waited_for():
    clock = Clock()

    def wait():
        clock.now += 10

    seconds = take_turns({"a": clock.side("a", 1, 2), "b": clock.side("b", 3, 4)}, 2, lambda: clock.now, wait)
    assert seconds == {"a": [11, 12], "b": [13, 14]}


@pytest.mark.parametrize(
    ("values", "spread"),
    [
        ([3.0], Spread(3, 3, 3)),
        ([4.0, 1.0], Spread(2.5, 1, 4)),
        ([5.0, 1.0, 3.0], Spread(3, 1, 5)),
        ([1.0, 2.0, 3.0, 4.0], Spread(2.5, 2, 3)),
        ([9.0, 1.0, 2.0, 3.0, 4.0, 5.0, 6.0, 7.0], Spread(4.5, 3, 6)),
    ],
)
def test_a_spread_is_the_median_and_the_middle_half(values, spread):
    assert Spread.of(values) == spread


def test_ratios_are_those_of_each_round_and_above_1_where_the_side_is_faster():
    seconds = {"base": [2.0, 30.0, 4.0], "side": [1.0, 10.0, 1.0]}
    assert ratios(seconds, "side", "base") == Spread(3, 2, 4)  # of the medians it would be 4


def test_rows_compare_all_but_the_base():
    rows = list(rows_of("step", "built-in", {"base": [2.0], "side": [1.0]}, "base", images=4, notes={"side": "so"}))
    assert [(row.side, row.ratio, row.base, row.note) for row in rows] == [
        ("base", None, None, ""),
        ("side", Spread(2, 2, 2), "base", "so"),
    ]
    assert rows[1].cells()[4] == "4"


def test_rows_without_the_base_compare_none():
    assert [row.ratio for row in rows_of("step", "built-in", {"side": [1.0]}, "base")] == [None]


@pytest.mark.parametrize(
    ("sides", "side", "wanted"),
    [
        ((), "OpenVINO", True),
        (("latentdiff",), "latentdiff compiled", True),
        (("latentdiff eager",), "latentdiff compiled", False),
        (("latentdiff",), "diffusers eager", False),
    ],
)
def test_sides_are_chosen_by_how_they_begin(sides, side, wanted):
    assert Settings(sides=sides).wants(side) is wanted


def test_facts_name_the_instructions_and_the_versions():
    facts = machine(torch.device("cpu"))
    assert facts["instructions"] == torch.backends.cpu.get_cpu_capability()
    assert facts["torch"] == torch.__version__ and {"processor", "cores", "threads", "latentdiff"} <= facts.keys()


@pytest.mark.thorough
def test_a_process_that_ends_without_a_result_is_an_error():
    with pytest.raises(RuntimeError, match="the process of _exit ended without a result"):
        in_process(__import__("os")._exit, 1)
