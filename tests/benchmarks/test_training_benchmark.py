"""The benchmark runs; what it measures says nothing at this size."""

import subprocess
import sys
from pathlib import Path

import pytest

BENCHMARKS = Path(__file__).parents[2] / "benchmarks"


@pytest.mark.slow
def test_it_prints_a_line_for_every_workload():
    command = [sys.executable, BENCHMARKS / "training.py", "--rounds", "1", "--steps", "1"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    lines = [line.split(" | ") for line in done.stdout.splitlines() if line.startswith("| ")]
    assert [line[0].removeprefix("| ") for line in lines[1:]] == [
        "first stage",
        "diffusion, cached",
        "diffusion, not cached",
    ]
    assert all(float(number.removesuffix(" |")) > 0 for line in lines[1:] for number in line[1:])
