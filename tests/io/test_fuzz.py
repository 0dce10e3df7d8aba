"""Damaged files end in an error of ours; tests/io/fuzz.py makes them."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

SCRIPT = Path(__file__).with_name("fuzz.py")


@pytest.mark.thorough
@pytest.mark.parametrize(
    ("door", "count"),
    [
        ("read", 20_000),
        ("load", 500),
        ("convert", 300),
        ("info", 500),
        pytest.param("read", 500_000, marks=pytest.mark.slow),
        pytest.param("load", 100_000, marks=pytest.mark.slow),
        pytest.param("convert", 50_000, marks=pytest.mark.slow),
        pytest.param("info", 100_000, marks=pytest.mark.slow),
    ],
)
def test_damaged_files(door, count):
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    command = [sys.executable, str(SCRIPT), "--count", str(count), "--through", door]
    done = subprocess.run(command, capture_output=True, text=True, env=environment, timeout=1800, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stdout.startswith(f"{count} files through {door}")
