"""Damaged files end in an error of ours; tests/io/fuzz.py makes them."""

import fuzz
import fuzz_pictures
import pytest
from forked import Forked

SCRIPTS = {"fuzz": fuzz, "fuzz_pictures": fuzz_pictures}


@pytest.mark.thorough
@pytest.mark.parametrize(
    ("script", "count", "options"),
    [
        ("fuzz", 4_000, ["--through", "read"]),
        ("fuzz", 200, ["--through", "load"]),
        ("fuzz", 100, ["--through", "convert"]),
        ("fuzz", 200, ["--through", "info"]),
        ("fuzz_pictures", 150, []),
        pytest.param("fuzz", 500_000, ["--through", "read"], marks=pytest.mark.slow),
        pytest.param("fuzz", 100_000, ["--through", "load"], marks=pytest.mark.slow),
        pytest.param("fuzz", 50_000, ["--through", "convert"], marks=pytest.mark.slow),
        pytest.param("fuzz", 100_000, ["--through", "info"], marks=pytest.mark.slow),
        pytest.param("fuzz_pictures", 20_000, [], marks=pytest.mark.slow),
    ],
)
def test_damaged_files(script, count, options):
    done = Forked(lambda: SCRIPTS[script].main(["--count", str(count), *options])).ended(patience=1800)
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stdout.startswith(f"{count} files")
