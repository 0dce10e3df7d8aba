"""What a run says of itself: means over some steps to `log.jsonl` and the progress bar, and what validation finds."""

from __future__ import annotations

import itertools
import json
import math
import os
import shutil
import sys
import time
import warnings
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path

from accelerate import Accelerator
from tqdm.auto import tqdm

from latentdiff.errors import LatentDiffWarning
from latentdiff.io.files import atomic_file
from latentdiff.io.system import sync_open
from latentdiff.progress import SmoothedMeans
from latentdiff.training.engine.belongings import LOG
from latentdiff.training.engine.failures import tolerate_os_errors
from latentdiff.training.engine.session import Session
from latentdiff.training.engine.trackers import track_values
from latentdiff.types import JSON


class StepProgress(tqdm):  # type: ignore[type-arg]
    """A bar where a terminal shows it, else a line from time to time; no run ends for want of room on stderr's disk.

    Commands keep libraries from writing to stderr; it then has the stream of before as its attribute `behind`.

    Args:
        steps: The numbers of the steps that are to be made.
        shown: Whether this process shows it.
    """

    def __init__(self, steps: range, *, shown: bool) -> None:
        self.stream = getattr(sys.stderr, "behind", sys.stderr)
        self.in_lines = not self.stream.isatty()
        self.smoothed, self.shown = SmoothedMeans(), shown
        super().__init__(steps, initial=steps.start, total=len(steps) + steps.start, disable=not shown)

    def display(self, *args: object, **options: object) -> None:
        """Show the bar, if possible."""
        with suppress(OSError):
            if not self.in_lines:
                super().display(*args, **options)  # type: ignore[arg-type]

    def clear(self, *args: object, **options: object) -> None:
        """Take the bar off the terminal, if there is one."""
        with suppress(OSError):
            if not self.in_lines:
                super().clear(*args, **options)  # type: ignore[arg-type]

    def follow(self, values: Mapping[str, float]) -> None:
        """Have the bar show the values of a step, averaged with those of the last ones."""
        if not self.disable and not self.in_lines:
            first = not self.smoothed.sums  # which nobody is to wait for
            means = self.smoothed.add(values)
            self.set_postfix({name: f"{mean:.4g}" for name, mean in means.items()}, refresh=first)

    def report(self, step: int, values: Mapping[str, float]) -> None:
        """Print a line after a step, where there is no bar."""
        if self.in_lines and not self.disable:
            text = ", ".join(f"{name} {value:.4g}" for name, value in values.items())
            with suppress(OSError):
                print(f"step {step} of {self.total}: {text}", file=self.stream, flush=True)

    def say(self, line: str) -> None:
        """Print a line, above the bar where there is one; also when the steps are over."""
        if self.shown:
            with suppress(OSError):
                self.write(line, file=self.stream)

    def close(self) -> None:
        """Show the bar for the last time, if possible."""
        with suppress(OSError):
            super().close()


class Log:
    """Means over `logging_steps` steps, skipped ones left out, to the progress bar and `log.jsonl`.

    Args:
        session: The run's recipe, its folder, and its processes, of which the main one writes.

    Attributes:
        images: The images of one step, over all processes.
    """

    def __init__(self, session: Session) -> None:
        recipe, accelerator = session.recipe, session.accelerator
        self.session: Session = session
        self.accelerator: Accelerator = accelerator
        self.path, self.every = session.output_dir / LOG, recipe.logging_steps
        self.images = recipe.train_batch_size * recipe.gradient_accumulation_steps * accelerator.num_processes
        self.sums: dict[str, float] = {}
        self.counts: dict[str, int] = {}  # of the steps that have a value, which not all of them have
        self.count = self.skipped = 0
        self.start, self.started, self.waited = time.perf_counter(), 0, 0.0
        self.size, self.waiting = 0, b""

    def state(self) -> JSON:
        """The line that is not full yet, and those that wait for a disk, for a checkpoint."""
        numbers = {"sums": self.sums, "counts": self.counts, "count": self.count, "skipped": self.skipped}
        return {**numbers, "waiting": self.waiting.decode()}

    def load(self, state: JSON) -> None:
        """Go on with the line of a checkpoint."""
        self.sums, self.count, self.skipped = dict(state["sums"]), state["count"], state["skipped"]
        self.counts, self.waiting = dict(state["counts"]), state["waiting"].encode()
        self.started = self.count + self.skipped

    def begin(self, step: int) -> None:
        """Begin the file, or go on with that of the checkpoint's run, whose lines after `step` are dropped.

        Lines of another run, or of one that had come further, stay in a file of another name. The main process alone
        calls it.
        """
        found = self.session.checkpoint
        source = None if found is None else found.parent / LOG
        lines = source.read_bytes().splitlines(keepends=True) if source and source.exists() else []
        kept = [line for line in lines if _step_of(line) <= step]
        own = source is not None and source.resolve() == self.path.resolve()
        lost = len(kept) < len(lines) and self.session.came_further() if own else self.path.exists()
        if lost and self.path.stat().st_size:
            self._keep_aside()
        kept += [line for line in self.waiting.splitlines(keepends=True) if line not in kept]
        if kept or self.path.exists():
            with atomic_file(self.path.resolve()) as aside:
                aside.write_bytes(b"".join(kept))
            self.size, self.waiting = self.path.stat().st_size, b""

    def _keep_aside(self) -> None:
        """Keep a copy of the file under the next name that is free: log.jsonl.1, log.jsonl.2, ..."""
        names = (self.path.with_name(f"{LOG}.{number}") for number in itertools.count(1))
        aside = next(path for path in names if not os.path.lexists(path))
        with atomic_file(aside) as whole:
            shutil.copyfile(self.path, whole)
        line = f"{self.path} has lines of an earlier run; they are kept in {aside.name}"
        warnings.warn(LatentDiffWarning(line), stacklevel=2)

    def add(
        self, values: Mapping[str, float] | None, step: int, lr: float, progress: StepProgress, waited: float
    ) -> None:
        """Count the values of a step, None if it was skipped, and write a line when it is time.

        Args:
            values: Of the step.
            step: How many steps have been made.
            lr: The learning rate.
            progress: The bar.
            waited: The seconds of the step in which it waited for data.
        """
        for name, value in (values or {}).items():
            self.sums[name] = self.sums.get(name, 0.0) + value
            self.counts[name] = self.counts.get(name, 0) + 1
        progress.follow(values or {})
        self.waited += waited
        self.count += values is not None
        self.skipped += values is None
        if step % self.every:
            return
        means = {name: total / self.counts[name] for name, total in self.sums.items()}
        progress.report(step, means)
        steps, seconds = self.count + self.skipped - self.started, time.perf_counter() - self.start
        times = {"images_per_second": steps * self.images / seconds, "data_wait": self.waited / seconds}
        self.write(step, {"lr": lr, **times, "skipped": self.skipped, **means})
        self.sums, self.counts, self.count, self.skipped = {}, {}, 0, 0
        self.start, self.started, self.waited = time.perf_counter(), 0, 0.0

    def write(self, step: int, values: Mapping[str, float]) -> None:
        """Write one line, and tell the trackers; where the disk doesn't allow it, it waits for the next one."""
        if not self.accelerator.is_main_process:
            return
        line = {"step": step, "images": step * self.images, **values}
        self.waiting += json.dumps({name: rounded(value) for name, value in line.items()}).encode() + b"\n"
        with tolerate_os_errors(f"writing {self.path}", lambda: "its lines wait for the next one"):
            with open(self.path, "ab") as file:
                file.truncate(self.size)  # of a line that was written in part
                file.write(self.waiting)
                file.flush()
                sync_open(file.fileno())
            self.size, self.waiting = self.size + len(self.waiting), b""
        track_values(self.accelerator, values, step)


def rounded(value: float) -> float:
    """A value as a line of the log has it."""
    return float(f"{value:.6g}")


def lowest(path: Path, name: str, until: int) -> tuple[float, int] | None:
    """The lowest value of `name` in the lines of a log up to step `until`, and its step; None where there is none."""
    lines = path.read_bytes().splitlines() if path.exists() else []
    whole = [json.loads(line) for line in lines if _step_of(line) <= until]
    return min(((line[name], int(line["step"])) for line in whole if name in line), default=None)


def _step_of(line: bytes) -> float:
    """The step of a line; infinite if the line is not whole."""
    try:
        return float(json.loads(line)["step"])
    except (ValueError, KeyError, TypeError):
        return math.inf
