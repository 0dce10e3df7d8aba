"""What a run says of itself: means over some steps to `log.jsonl` and the progress bar, and what validation finds."""

from __future__ import annotations

import json
import math
import sys
import time
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path

from accelerate import Accelerator
from tqdm.auto import tqdm

from latentdiff.io.files import atomic_file
from latentdiff.io.system import sync_open
from latentdiff.training.engine.failures import tolerate_os_errors
from latentdiff.training.engine.options import Recipe
from latentdiff.training.engine.trackers import track_values
from latentdiff.types import JSON


class Progress(tqdm):  # type: ignore[type-arg]
    """A bar where a terminal shows it, else a line from time to time; no run ends for want of room on stderr's disk.

    Commands keep libraries from writing to stderr; it then has the stream of before as its attribute `behind`.

    Args:
        steps: The numbers of the steps that are to be made.
        shown: Whether this process shows it.
    """

    def __init__(self, steps: range, *, shown: bool) -> None:
        self.stream = getattr(sys.stderr, "behind", sys.stderr)
        self.in_lines = not self.stream.isatty()
        super().__init__(steps, initial=steps.start, total=len(steps) + steps.start, disable=not shown)

    def display(self, *args: object, **options: object) -> None:
        """Show the bar, if possible."""
        with suppress(OSError):
            if not self.in_lines:
                super().display(*args, **options)  # type: ignore[arg-type]

    def report(self, step: int, values: Mapping[str, float]) -> None:
        """Show values after a step."""
        shown = {name: f"{value:.4g}" for name, value in values.items()}
        self.set_postfix(shown)
        if self.in_lines and not self.disable:
            text = ", ".join(f"{name} {value}" for name, value in shown.items())
            with suppress(OSError):
                print(f"step {step} of {self.total}: {text}", file=self.stream, flush=True)

    def close(self) -> None:
        """Show the bar for the last time, if possible."""
        with suppress(OSError):
            super().close()


class Log:
    """Means over `logging_steps` steps, skipped ones left out, to the progress bar and `log.jsonl`.

    Args:
        output_dir: The folder of `log.jsonl`.
        recipe: The run's recipe.
        accelerator: The run's processes, of which the main one writes.

    Attributes:
        images: The images of one step, over all processes.
    """

    def __init__(self, output_dir: Path, recipe: Recipe, accelerator: Accelerator) -> None:
        self.path, self.every, self.accelerator = output_dir / "log.jsonl", recipe.logging_steps, accelerator
        self.images = recipe.train_batch_size * recipe.gradient_accumulation_steps * accelerator.num_processes
        self.sums: dict[str, float] = {}
        self.counts: dict[str, int] = {}  # of the steps that have a value, which not all of them have
        self.count = self.skipped = 0
        self.start, self.started = time.perf_counter(), 0
        self.size, self.waiting = 0, b""

    def state(self) -> JSON:
        """The line that is not full yet, for a checkpoint."""
        return {"sums": self.sums, "counts": self.counts, "count": self.count, "skipped": self.skipped}

    def load(self, state: JSON) -> None:
        """Go on with the line of a checkpoint."""
        self.sums, self.count, self.skipped = dict(state["sums"]), state["count"], state["skipped"]
        self.counts = dict(state["counts"])
        self.started = self.count + self.skipped

    def cut(self, step: int) -> None:
        """Drop what the file says of steps after `step`: of another run, or one that ended after its checkpoint."""
        if not self.accelerator.is_main_process or not self.path.exists():
            return
        lines = self.path.read_bytes().splitlines(keepends=True)
        with atomic_file(self.path) as aside:
            aside.write_bytes(b"".join(line for line in lines if _step_of(line) <= step))
        self.size = self.path.stat().st_size

    def add(self, values: Mapping[str, float] | None, step: int, lr: float, progress: Progress) -> None:
        """Count the values of a step, None if it was skipped, and write a line when it is time."""
        for name, value in (values or {}).items():
            self.sums[name] = self.sums.get(name, 0.0) + value
            self.counts[name] = self.counts.get(name, 0) + 1
        self.count += values is not None
        self.skipped += values is None
        if step % self.every:
            return
        means = {name: total / self.counts[name] for name, total in self.sums.items()}
        progress.report(step, means)
        steps, seconds = self.count + self.skipped - self.started, time.perf_counter() - self.start
        rate = steps * self.images / seconds
        self.write(step, {"lr": lr, "images_per_second": rate, "skipped": self.skipped, **means})
        self.sums, self.counts, self.count, self.skipped = {}, {}, 0, 0
        self.start, self.started = time.perf_counter(), 0

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

    def lowest(self, name: str, until: int) -> float:
        """The lowest value of `name` in the lines up to step `until`, infinity where there is none."""
        if not until or not self.path.exists():
            return math.inf
        lines = map(json.loads, self.path.read_text(encoding="utf-8").splitlines())
        return min((line[name] for line in lines if name in line and line["step"] <= until), default=math.inf)


def rounded(value: float) -> float:
    """A value as a line of the log has it."""
    return float(f"{value:.6g}")


def _step_of(line: bytes) -> float:
    """The step of a line; infinite if the line is not whole."""
    try:
        return float(json.loads(line)["step"])
    except (ValueError, KeyError, TypeError):
        return math.inf
