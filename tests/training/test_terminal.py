"""What a run shows while it trains, and what it says when the machine can't do what is asked for."""

import re
import sys
import warnings
from contextlib import nullcontext, redirect_stderr

import pytest
import torch
from accelerate import Accelerator
from forked import Forked
from screen import Terminal, screen
from tiny_run import run

from latentdiff import ConfigError
from latentdiff.cli.console import quiet_libraries
from latentdiff.errors import LatentDiffWarning

pytestmark = pytest.mark.thorough


def bars(terminal):
    """What the bar showed, one after the other."""
    return [part for part in re.split(r"[\r\n]", terminal.getvalue()) if "loss=" in part]


def test_the_loss_stands_in_the_bar_from_the_first_step(tmp_path):
    """A line of the log comes after 1000 steps; the means begin with the first values."""
    terminal, losses, seen = Terminal(), [], []

    def hook(at, loss):
        losses.append(float(loss.detach()))
        seen.append(bars(terminal)[-1:])
        return loss

    with redirect_stderr(terminal):
        run(tmp_path, hook, logging_steps=1000)
    assert f"loss={losses[0]:.4g}, twice={2 * losses[0]:.4g}" in seen[1][0]
    weights = [0.98**n for n in range(len(losses))][::-1]
    mean = sum(w * x for w, x in zip(weights, losses, strict=True)) / sum(weights)
    assert f"loss={mean:.4g}" in bars(terminal)[-1] and "10/10" in bars(terminal)[-1]


@pytest.mark.parametrize("command", [True, False])
def test_warnings_stand_above_the_bar(monkeypatch, tmp_path, command):
    """On the command line as a line of ours, in Python as Python shows warnings."""

    def hook(at, loss):
        if at == 5:
            warnings.warn(LatentDiffWarning("look at this"), stacklevel=1)
        return loss

    terminal = Terminal()
    monkeypatch.setattr(warnings, "showwarning", lambda message, *_, **__: print(message, file=sys.stderr))
    with redirect_stderr(terminal), quiet_libraries(False) if command else nullcontext():
        run(tmp_path, hook)
    lines = [line for line in screen(terminal.getvalue()) if line]
    assert lines[0] == ("latentdiff: warning: look at this" if command else "look at this")
    assert "10/10" in lines[1] and len(lines) == 2


def test_where_there_is_no_terminal_lines_are_all(capsys, tmp_path):
    run(tmp_path, logging_steps=5)
    assert [line.partition(":")[0] for line in capsys.readouterr().err.splitlines() if line] == [
        "step 5 of 10",
        "step 10 of 10",
    ]


def set_up(output):
    try:
        run(output)
    except ConfigError as error:
        print(error)


ENVIRONMENTS = {
    "a process without the others' address": ({"RANK": "0", "WORLD_SIZE": "2", "LOCAL_RANK": "0"}, "MASTER_"),
    "a number of processes that is none": ({"RANK": "0", "WORLD_SIZE": "two", "LOCAL_RANK": "0"}, "two"),
    "a port that is none": (
        {"RANK": "0", "WORLD_SIZE": "2", "LOCAL_RANK": "0", "MASTER_ADDR": "localhost", "MASTER_PORT": "99999999"},
        "port|range",
    ),
    "another precision than there is": ({"ACCELERATE_DYNAMO_BACKEND": "NOTHING"}, "NOTHING|dynamo"),
}


@pytest.mark.parametrize("case", ENVIRONMENTS)
def test_what_accelerate_cannot_set_up_is_one_line(tmp_path, case):
    environment, line = ENVIRONMENTS[case]
    done = Forked(lambda: set_up(tmp_path / "out"), environment=environment).ended()
    assert re.search(rf"^accelerate can't set up a run .*({line}).*; choose another", done.stdout), done.stderr[-2000:]
    assert done.stdout.count("\n") == 1 and not (tmp_path / "out").exists()


def test_a_precision_that_the_device_lacks_is_one_line(tmp_path, monkeypatch):
    """As on a GPU before Ampere."""
    monkeypatch.setattr("accelerate.accelerator.is_bf16_available", lambda *_: False)
    monkeypatch.setattr(Accelerator, "device", property(lambda self: torch.device("cuda")))
    with pytest.raises(ConfigError, match=r"mixed_precision 'bf16' here \(bf16 mixed precision requires .*\); choose"):
        run(tmp_path / "out", mixed_precision="bf16")
