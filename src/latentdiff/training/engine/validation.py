"""A look at a run while it trains: values on held-out data, what the task finds, and the best weights so far."""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import Generic

import torch
from torch import nn
from torch.utils.data import Dataset, default_collate

from latentdiff.data.stream import VisitedDataset
from latentdiff.seeding import SampleGenerators
from latentdiff.training.engine.belongings import BEST, PICTURES
from latentdiff.training.engine.ema import EMA
from latentdiff.training.engine.failures import tolerate_os_errors
from latentdiff.training.engine.log import Log, rounded
from latentdiff.training.engine.options import Recipe
from latentdiff.training.engine.task import Batch, Task, to_device
from latentdiff.training.engine.trackers import track_pictures


class Validation(Generic[Batch]):
    """Values and pictures of the averaged weights, after which training goes on as if nobody had looked.

    Args:
        task: What is trained.
        ema: The averaged weights, if EMA is on.
        held_out: Data for the loss that is not trained on, if there is any.
        recipe: The run's recipe.
        log: Gets the values, and tells the best loss before a resume.
        first: The number of steps before a resume.
    """

    def __init__(
        self, task: Task[Batch], ema: EMA | None, held_out: Dataset[Batch] | None, recipe: Recipe, log: Log, first: int
    ) -> None:
        self.task: Task[Batch] = task
        self.held_out: Dataset[Batch] | None = held_out
        self.ema, self.recipe, self.log = ema, recipe, log
        self.folder = Path(recipe.output_dir)
        self.best = log.lowest("validation/loss", until=first)

    @torch.no_grad()
    def __call__(self, step: int) -> None:
        """Look, after `step` steps."""
        pictures = self.folder / PICTURES
        with (
            tolerate_os_errors(f"writing what validation found at step {step}", lambda: "the run goes on"),
            _evaluated(self.task),
            self.ema.applied() if self.ema else nullcontext(),
        ):
            self._look(pictures, step)
        track_pictures(self.log.accelerator, pictures.glob(f"*-{step}.png"), step)

    def _look(self, pictures: Path, step: int) -> None:
        pictures.mkdir(exist_ok=True)
        values = {**self._held_out(), **self.task.validate(pictures, step)}
        loss = rounded(values.get("loss", math.inf))  # as a resumed run reads the best from the log
        if loss < self.best:
            (self.folder / BEST).mkdir(exist_ok=True)
            self.task.export(self.folder / BEST)
            self.best = loss
        if values:
            self.log.write(step, {f"validation/{name}": value for name, value in values.items()})

    def _held_out(self) -> dict[str, float]:
        """Means of the loss and the task's values, at draws that are the same every time."""
        items, batch_size = self.held_out, self.recipe.train_batch_size
        if items is None:
            return {}
        device = next(self.task.parameters()).device
        total: int = len(items)  # type: ignore[arg-type]
        sums: dict[str, float] = {}
        for start in range(0, total, batch_size):
            numbers = range(start, min(start + batch_size, total))
            rows = [items.visit(n, n) if isinstance(items, VisitedDataset) else items[n] for n in numbers]
            loss, values = self.task(
                to_device(default_collate(rows), device), SampleGenerators(self.recipe.seed, numbers)
            )
            for name, value in {"loss": loss, **values}.items():
                sums[name] = sums.get(name, 0.0) + float(value) * len(numbers)
        return {name: value / total for name, value in sums.items()}


@contextmanager
def _evaluated(task: nn.Module) -> Iterator[None]:
    """Inside the block all modules are in evaluation mode; afterwards each is as before."""
    modes = {module: module.training for module in task.modules()}
    task.eval()
    try:
        yield
    finally:
        for module, mode in modes.items():
            module.training = mode
