"""Kills runs, samplings and conversions at random instants, and counts what is lost.

    python scripts/kills.py sample 100      # kills of `latentdiff sample` on three processes
    python scripts/kills.py convert 50      # kills of `latentdiff convert`
    python scripts/kills.py training        # 200 kills of a run of one process, and of one of two: the tests' own

What is killed is started again until it has come to its end, in the same folder; then another one begins. After each
kill all files have to be those of a run that nobody killed, byte for byte, and at the end nothing else may lie there.
A server that has torch loaded forks the processes, so that kills fall into the work and not into imports.
"""

from __future__ import annotations

import contextlib
import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT / "tests"))

from tiny import tiny_unconditional  # noqa: E402

import latentdiff.cli.batch.sampler  # noqa: E402  # as what is imported here need not be after each fork
import latentdiff.conversion.convert  # noqa: E402, F401
from latentdiff.cli.main import main  # noqa: E402

TRAINING = (
    "-m",
    "pytest",
    "-s",
    "-p",
    "no:cacheprovider",
    "-m",
    "slow",
    "tests/training/test_processes.py",
    "-k",
    "kills",
)


def forked(words: list[str], rank: int, processes: int) -> int:
    """A child that runs a command as one of several processes; its number."""
    child = os.fork()
    if child:
        return child
    code = 1
    with contextlib.suppress(BaseException):
        os.environ.update(RANK=str(rank), LOCAL_RANK=str(rank), WORLD_SIZE=str(processes), OMP_NUM_THREADS="1")
        sys.stdout = sys.stderr = open(os.devnull, "w")  # noqa: SIM115
        code = main(words)
    os._exit(code)


def run(words: list[str], processes: int, kill_after: float | None = None) -> list[int]:
    """Run a command on so many processes, and kill them after some seconds; their exit codes."""
    children = [forked(words, rank, processes) for rank in range(processes)]
    if kill_after is not None:
        time.sleep(kill_after)
        for child in random.sample(children, len(children)):
            os.kill(child, signal.SIGKILL)
    return [os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) for child in children]


def contents(folder: Path) -> dict[str, bytes]:
    """The files of a folder, without what is hidden in it."""
    files = [path for path in folder.rglob("*") if path.is_file()]
    names = {path: path.relative_to(folder) for path in files}
    return {
        str(name): path.read_bytes() for path, name in names.items() if not any(part[0] == "." for part in name.parts)
    }


def count(kills: int, processes: int, command: Callable[[Path], list[str]], folder: Path) -> str:
    """Kill a command until it was killed so often, and has come to its end after it; a line on what was found."""
    (folder / "whole").mkdir()
    start = time.perf_counter()
    assert run(command(folder / "whole" / "out"), processes) == [0] * processes
    seconds, whole = time.perf_counter() - start, contents(folder / "whole")
    killed = inside = finished = other = 0
    left = True
    place = folder / "0"
    place.mkdir()
    while killed < kills or left:
        codes = run(command(place / "out"), processes, random.uniform(0, 1.05 * seconds) if killed < kills else None)
        killed += -signal.SIGKILL in codes
        inside += any(path.name.endswith(".latentdiff") for path in place.rglob(".*"))
        found = contents(place)
        other += any(whole.get(name) != content for name, content in found.items())
        left = codes != [0] * processes
        if not left:
            other += found != whole or any(path.name[0] == "." for path in place.rglob("*"))
            finished += 1
            shutil.rmtree(place)
            place = folder / str(finished)
            place.mkdir()
    return f"{killed} kills, {inside} left something hidden, {finished} came to their end, {other} had other files"


def sample(kills: int, folder: Path) -> str:
    """Kill samplings on three processes."""
    model = tiny_unconditional(folder / "model")
    options = ["--model", str(model), "--seed", "0-59", "--steps", "2", "--batch-size", "2"]
    return count(kills, 3, lambda out: ["sample", *options, "-o", str(out)], folder)


def convert(kills: int, folder: Path) -> str:
    """Kill conversions."""
    model = tiny_unconditional(folder / "model")
    return count(kills, 1, lambda out: ["convert", str(model), str(out)], folder)


COMMANDS: dict[str, Callable[[int, Path], str]] = {"sample": sample, "convert": convert}

if __name__ == "__main__":
    name, *number = sys.argv[1:] or ["training"]
    if name == "training":
        sys.exit(subprocess.run([sys.executable, *TRAINING], cwd=ROOT, check=False).returncode)
    random.seed(0)
    with tempfile.TemporaryDirectory() as place:
        print(f"{name}: {COMMANDS[name](int(number[0]) if number else 100, Path(place))}")
