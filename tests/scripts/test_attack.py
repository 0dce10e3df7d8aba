"""scripts/attack.py: damaged and hostile files through every door; nothing of them may go wrong."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

SCRIPT = Path(__file__).parents[2] / "scripts" / "attack.py"


@pytest.mark.thorough
@pytest.mark.parametrize(
    "arguments",
    [
        ["mutations", "--count", "100", "--processes", "1"],
        pytest.param(["mutations", "--count", "20000", "--seed", "1"], marks=pytest.mark.slow),
        pytest.param(["payloads"], marks=pytest.mark.slow),
    ],
)
def test_nothing_goes_wrong(arguments):
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    command = [sys.executable, str(SCRIPT), *arguments]
    done = subprocess.run(command, capture_output=True, text=True, env=environment, timeout=3600, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "exceptions that escaped: 0" in done.stdout and "reads outside of the folder: 0" in done.stdout
