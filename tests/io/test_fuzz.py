"""Damaged files end in an error of ours; tests/io/fuzz.py makes them."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

FOLDER = Path(__file__).parent


@pytest.mark.thorough
@pytest.mark.parametrize(
    ("script", "count", "options"),
    [
        ("fuzz.py", 20_000, ["--through", "read"]),
        ("fuzz.py", 500, ["--through", "load"]),
        ("fuzz.py", 300, ["--through", "convert"]),
        ("fuzz.py", 500, ["--through", "info"]),
        ("fuzz_pictures.py", 500, []),
        pytest.param("fuzz.py", 500_000, ["--through", "read"], marks=pytest.mark.slow),
        pytest.param("fuzz.py", 100_000, ["--through", "load"], marks=pytest.mark.slow),
        pytest.param("fuzz.py", 50_000, ["--through", "convert"], marks=pytest.mark.slow),
        pytest.param("fuzz.py", 100_000, ["--through", "info"], marks=pytest.mark.slow),
        pytest.param("fuzz_pictures.py", 20_000, [], marks=pytest.mark.slow),
    ],
)
def test_damaged_files(script, count, options):
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    command = [sys.executable, str(FOLDER / script), "--count", str(count), *options]
    done = subprocess.run(command, capture_output=True, text=True, env=environment, timeout=1800, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stdout.startswith(f"{count} files")
