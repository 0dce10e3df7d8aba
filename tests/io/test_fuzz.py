"""Damaged files end in an error of ours; tests/io/fuzz.py makes them."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

FOLDER = Path(__file__).parent


@pytest.mark.thorough
@pytest.mark.parametrize(
    ("script", "count"),
    [
        ("fuzz.py", 20_000),
        pytest.param("fuzz.py", 500_000, marks=pytest.mark.slow),
        ("fuzz_pictures.py", 500),
        pytest.param("fuzz_pictures.py", 20_000, marks=pytest.mark.slow),
    ],
)
def test_damaged_files(script, count):
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    command = [sys.executable, str(FOLDER / script), "--count", str(count)]
    done = subprocess.run(command, capture_output=True, text=True, env=environment, timeout=1800, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stdout.startswith(f"{count} files")
