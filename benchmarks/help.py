"""CPU seconds of `latentdiff --help` and of the help of every command: user and system, the median of several runs.

Run `python -m benchmarks help`. Each run is a process of its own, as on a command line; the first line is Python alone.
"""

from __future__ import annotations

import resource
import statistics
import subprocess
import sys
from collections.abc import Iterator, Sequence

from cyclopts import App

from benchmarks.measuring import parser_of
from latentdiff.cli.main import make_app


def commands(app: App, words: tuple[str, ...] = ()) -> Iterator[tuple[str, ...]]:
    """The words of every command, those of groups included."""
    yield words
    for name in app:
        if not name.startswith("-"):
            yield from commands(app[name], (*words, name))


def cpu_seconds(argv: list[str]) -> float:
    """What a process takes."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    subprocess.run(argv, stdout=subprocess.DEVNULL, check=True)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return after.ru_utime - before.ru_utime + after.ru_stime - before.ru_stime


def main(words: Sequence[str]) -> None:
    parser = parser_of(__doc__)
    parser.add_argument("--runs", type=int, default=5, help="runs of each command")
    runs = parser.parse_args(words).runs
    python = [sys.executable, "-c", ""]
    print(f"{statistics.median(cpu_seconds(python) for _ in range(runs)):.3f} s  python -c ''")
    for command in commands(make_app()):
        argv = [sys.executable, "-m", "latentdiff", *command, "--help"]
        print(f"{statistics.median(cpu_seconds(argv) for _ in range(runs)):.3f} s  latentdiff {' '.join(argv[3:])}")
