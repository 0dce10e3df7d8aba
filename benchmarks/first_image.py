"""From the shell to the first image of the built-in model, by part, in new processes that take turns.

The parts are those of a process that does what `latentdiff generate` does: Python itself, the imports, loading the
model, and the first image, which is written to a file. "command" is `latentdiff generate` as a whole. The floor is what
no use of diffusers goes without: Python, importing torch and the base of diffusers' pipelines, and then the same first
image. --against COMMIT lets the package of another commit take turns. --clock cpu counts CPU seconds, which other work
on the machine disturbs less; threads add up in them, so give OMP_NUM_THREADS=1.
"""

from __future__ import annotations

import itertools
import json
import os
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

from benchmarks.measuring import Row, Settings, Spread, source_of

PARTS = ("interpreter", "imports", "load", "first image")
STEPS = 50

MARKS = """
import json, sys, time
def mark():
    marks.append([time.time(), time.process_time()])
marks = []
mark()
"""
OURS = (
    MARKS
    + """
import latentdiff.cli.main
from latentdiff.cli.commands.generate import Generate
import latentdiff.cli.batch.runner
mark()
from latentdiff.cli.console import quiet_libraries
from latentdiff.pipelines.base import DiffusionPipeline
with quiet_libraries(quiet=True):
    pipe = DiffusionPipeline.from_pretrained("builtin:emoji")
    pipe.set_progress_bar_config(disable=True)
    mark()
    pipe("a red apple", seed=0, num_inference_steps=int(sys.argv[2])).images[0].save(sys.argv[1])
    mark()
print(json.dumps(marks))
"""
)
FLOOR = (
    MARKS
    + """
import torch
from diffusers.pipelines.pipeline_utils import DiffusionPipeline
mark()
print(json.dumps(marks))
"""
)


def run(command: list[str], source: Path | None) -> tuple[list[list[float]], dict[str, float]]:
    """The marks that a process prints, relative to its start, and what the whole of it took by both clocks."""
    environment = {**os.environ, "HF_HUB_OFFLINE": "1"}
    if source is not None:
        environment["PYTHONPATH"] = str(source)
    before, start = resource.getrusage(resource.RUSAGE_CHILDREN), time.time()
    done = subprocess.run(command, env=environment, check=True, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL)
    wall, after = time.time() - start, resource.getrusage(resource.RUSAGE_CHILDREN)
    cpu = after.ru_utime - before.ru_utime + after.ru_stime - before.ru_stime
    last = done.stdout.decode().strip().rpartition("\n")[2]
    marks = json.loads(last) if last.startswith("[[") else []
    return [[moment - start, spent] for moment, spent in marks], {"wall": wall, "cpu": cpu}


def parts_of(marks: list[list[float]], clock: str) -> list[float]:
    """The seconds between marks, the first from the start of the process."""
    moments = [0.0, *(mark[clock == "cpu"] for mark in marks)]
    return [after - before for before, after in itertools.pairwise(moments)]


def rows(settings: Settings) -> Iterator[Row]:
    """Measure all sides."""
    rounds, clock = min(settings.rounds, 2) if settings.quick else settings.rounds, settings.clock
    taken: dict[str, dict[str, list[float]]] = {}

    def note(side: str, part: str, seconds: float) -> None:
        taken.setdefault(side, {}).setdefault(part, []).append(seconds)

    with tempfile.TemporaryDirectory() as folder, source_of(settings.against) as sources:
        file = str(Path(folder) / "image.png")
        generate = ["generate", "a red apple", "--seed", "0", "--steps", str(STEPS), "-o", file, "--overwrite"]
        for number in range(rounds if settings.quick else rounds + 1):
            counts = settings.quick or number > 0  # the first warms the file system's cache up
            made = 0.0
            for side, source in sources.items():
                marks, whole = run([sys.executable, "-c", OURS, file, str(STEPS)], source)
                parts = parts_of(marks, clock)
                made = parts[-1] if side == "latentdiff" else made
                command = run([sys.executable, "-m", "latentdiff", *generate], source)[1]
                if counts:
                    for part, seconds in zip(PARTS, parts, strict=True):
                        note(side, part, seconds)
                    note(side, "whole process", whole[clock])
                    note(side, "command", command[clock])
            marks, whole = run([sys.executable, "-c", FLOOR], None)
            if counts:
                parts = parts_of(marks, clock)
                for part, seconds in zip(PARTS, parts, strict=False):
                    note("floor", part, seconds)
                note("floor", "first image", made)
                note("floor", "command", whole[clock] + made)
    for part in (*PARTS, "whole process", "command"):
        for side, parts in taken.items():
            if part in parts:
                longer = None
                if side != "floor" and part in ("imports", "command"):
                    pairs = zip(taken["floor"][part], parts[part], strict=True)
                    longer = Spread.of([floor / own for floor, own in pairs])
                base = None if longer is None else "the floor"
                yield Row("first-image", f"{part}, {clock} clock", side, Spread.of(parts[part]), longer, base)
