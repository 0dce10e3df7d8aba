"""No pickle runs code; tests/io/gadgets.py has them all."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

SCRIPT = Path(__file__).with_name("gadgets.py")


@pytest.mark.thorough
def test_no_gadget_runs(tmp_path):
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    command = [sys.executable, str(SCRIPT), str(tmp_path)]
    done = subprocess.run(
        command, capture_output=True, text=True, cwd=tmp_path, env=environment, timeout=300, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    files = int(done.stdout.split()[0])
    assert files >= 1000
    assert ", 0 opened [], 0 events []" in done.stdout
