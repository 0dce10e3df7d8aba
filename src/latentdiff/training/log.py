"""What a run says of itself: means over some steps to `log.jsonl` and the progress bar, and what validation finds."""

from __future__ import annotations

import json
import math
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from accelerate import Accelerator

from latentdiff.errors import LatentDiffError
from latentdiff.training.recipes import Recipe


class Log:
    """Means over `logging_steps` steps, to the progress bar and `log.jsonl`; values are read once per line only.

    Args:
        output_dir: Where `log.jsonl` is.
        recipe: Of the run.
        accelerator: The main process writes.
    """

    def __init__(self, output_dir: Path, recipe: Recipe, accelerator: Accelerator) -> None:
        self.path, self.every, self.accelerator = output_dir / "log.jsonl", recipe.logging_steps, accelerator
        self.images = recipe.train_batch_size * recipe.gradient_accumulation_steps * accelerator.num_processes
        self.sums: dict[str, torch.Tensor] = {}
        self.count, self.start = 0, time.perf_counter()

    def add(self, values: Mapping[str, torch.Tensor], step: int, lr: float, progress: Any) -> None:
        """Count the values () of a step, and write a line when it is time.

        Raises:
            LatentDiffError: If one of them isn't finite.
        """
        for name, value in values.items():
            self.sums[name] = self.sums.get(name, torch.zeros_like(value)) + value.detach()
        self.count += 1
        if step % self.every:
            return
        means = {name: float(total) / self.count for name, total in self.sums.items()}
        if not all(map(math.isfinite, means.values())):
            raise LatentDiffError(
                f"loss is {means['loss']} at step {step}; lower learning_rate or resume from the last checkpoint"
            )
        rate = self.count * self.images / (time.perf_counter() - self.start)
        if self.accelerator.is_main_process:
            progress.set_postfix({name: f"{value:.4g}" for name, value in means.items()})
            self.write(step, {"lr": lr, "images_per_second": rate, **means})
        self.sums, self.count, self.start = {}, 0, time.perf_counter()

    def write(self, step: int, values: Mapping[str, float]) -> None:
        """Write one line, and tell the trackers."""
        line = {"step": step, "images": step * self.images, **values}
        with open(self.path, "a", encoding="utf-8") as file:
            file.write(json.dumps({name: float(f"{value:.6g}") for name, value in line.items()}) + "\n")
        self.accelerator.log({name: float(value) for name, value in values.items()}, step=step)

    def lowest(self, name: str, until: int) -> float:
        """The lowest value of `name` in the lines up to step `until`, infinity where there is none."""
        if not until or not self.path.exists():
            return math.inf
        lines = map(json.loads, self.path.read_text(encoding="utf-8").splitlines())
        return min((line[name] for line in lines if name in line and line["step"] <= until), default=math.inf)
