"""What stands above a bar on a terminal, and the means that it shows."""

import logging
import sys
import warnings

import pytest
from screen import Terminal, screen
from tqdm import tqdm

from latentdiff.progress import SmoothedMeans, above_bars


def warn():
    warnings.warn("the disk is full", stacklevel=1)


def log():
    logger = logging.getLogger("a library")
    logger.handlers = [logging.StreamHandler(sys.stderr)]
    return logger.warning


@pytest.mark.parametrize("kind", ["warning", "log line"])
def test_what_comes_while_a_bar_is_shown_stands_above_it(monkeypatch, kind):
    terminal = Terminal()
    monkeypatch.setattr(sys, "stderr", terminal)
    monkeypatch.setattr(warnings, "showwarning", lambda message, *_, **__: print(message, file=sys.stderr))
    say_by_log = log()
    say = warn if kind == "warning" else lambda: say_by_log("the disk is full")
    with above_bars(), tqdm(total=2, file=terminal, ncols=60, mininterval=0) as bar:
        bar.update()
        say()
        bar.update()
    first, bar_line = (line for line in screen(terminal.getvalue()) if line)
    assert first == "the disk is full" and "2/2" in bar_line


def test_warnings_can_still_be_recorded_and_are_errors_where_they_are_to_be():
    with warnings.catch_warnings(record=True) as caught, above_bars():
        warnings.simplefilter("always")
        warn()
    assert [str(found.message) for found in caught] == ["the disk is full"]
    with above_bars(), pytest.warns(UserWarning, match="the disk is full"):
        warn()
    with above_bars(), warnings.catch_warnings():
        warnings.simplefilter("error")
        with pytest.raises(UserWarning):
            warn()


def test_afterwards_all_is_as_before():
    logger, before = logging.getLogger("a library"), warnings.showwarning
    logger.handlers = [handler := logging.StreamHandler(sys.stderr)]
    with above_bars():
        assert warnings.showwarning is not before and logger.handlers != [handler]
    assert warnings.showwarning is before and logger.handlers == [handler]


def test_a_mean_begins_with_the_first_value_and_follows():
    """After values a and b at decay d: (d (1 - d) a + (1 - d) b) / (1 - d^2) = (d a + b) / (1 + d)."""
    means = SmoothedMeans(decay=0.5)
    assert means.add({"loss": 4.0}) == {"loss": 4.0}
    assert means.add({"loss": 1.0, "logvar": 7.0}) == pytest.approx({"loss": 2.0, "logvar": 7.0})
    assert means.add({"loss": 1.0})["loss"] == pytest.approx((0.25 * 4 + 0.5 * 1 + 1) / 1.75)
