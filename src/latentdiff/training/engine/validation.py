"""A look at a run while it trains: values on held-out data, metrics, what the task finds, the best weights so far."""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, nullcontext
from pathlib import Path
from typing import Generic

import torch
from accelerate.utils import broadcast_object_list
from torch import nn
from torch.utils.data import Dataset, default_collate

from latentdiff.data.stream import VisitedDataset
from latentdiff.errors import LatentDiffError, LatentDiffWarning, one_line
from latentdiff.seeding import SampleGenerators
from latentdiff.training.engine.belongings import BEST, PICTURES
from latentdiff.training.engine.best import LOSS, Best
from latentdiff.training.engine.ema import EMA
from latentdiff.training.engine.failures import tolerate_os_errors
from latentdiff.training.engine.log import Log, StepProgress
from latentdiff.training.engine.measures import Measures
from latentdiff.training.engine.optimizers import averaged
from latentdiff.training.engine.options import Recipe
from latentdiff.training.engine.sharding import gathered, unsharded
from latentdiff.training.engine.task import Batch, Task, to_device
from latentdiff.training.engine.trackers import track_pictures


class Validation(Generic[Batch]):
    """Values and pictures of the averaged weights, after which training goes on as if nobody had looked.

    Args:
        task: What is trained.
        ema: The averaged weights, if EMA is on.
        optimizer: What trains it, which may average the weights, too.
        held_out: Data for the loss that is not trained on, if there is any.
        recipe: The run's recipe.
        log: Gets the values.
        best: The best validation so far.
        progress: Shows the metrics, and what chooses the best weights.

    Attributes:
        ends_run: Whether the last look was one too many without gain, as all processes know.
        among_best: Whether it found one of the best values, so that there is to be a checkpoint, as all know.
    """

    def __init__(
        self,
        task: Task[Batch],
        ema: EMA | None,
        optimizer: torch.optim.Optimizer,
        held_out: Dataset[Batch] | None,
        recipe: Recipe,
        log: Log,
        best: Best,
        progress: StepProgress,
    ) -> None:
        self.task: Task[Batch] = task
        self.held_out: Dataset[Batch] | None = held_out
        self.ema, self.optimizer = ema, optimizer
        self.recipe, self.log, self.best, self.progress = recipe, log, best, progress
        self.folder = Path(recipe.output_dir)
        self.ends_run = self.among_best = False

    def if_due(self, step: int) -> None:
        """Look if the recipe says so; all processes have to call it after every step."""
        every = self.recipe.validation.steps
        self.among_best = False
        if every and step % every == 0:
            self(step)

    @torch.no_grad()
    def __call__(self, step: int) -> None:
        """Look, after `step` steps; all processes have to call it, though the main one does most."""
        accelerator = self.log.accelerator
        main, values = accelerator.is_main_process, dict[str, float]()
        with _evaluated(self.task), averaged(self.ema, self.optimizer):
            with gathered(self.task, accelerator):
                measured = self._measured(step)
                if main:
                    with self._tolerated(step):
                        values = self._look(step, measured)
            (gains,) = broadcast_object_list([self.best.gains(values)])
            with unsharded(self.task, main) if gains else nullcontext():
                if main and values:
                    with self._tolerated(step):
                        self._note(step, values)
        if main:
            track_pictures(accelerator, (self.folder / PICTURES).glob(f"*-{step}.png"), step)
        if self.best.stop_after is not None or self.best.keep:
            self.ends_run, self.among_best = broadcast_object_list([self.best.ends_run, step in self.best.kept])

    def _measured(self, step: int) -> dict[str, float]:
        """The task's metrics; where they can't be computed, all processes know it, and a warning says so."""
        if self.task.measures is None:
            return {}
        try:
            return self.task.measures(self.folder)
        except (LatentDiffError, OSError) as error:  # the run is worth more than a number
            if self.log.accelerator.is_main_process:
                line = f"no metrics at step {step}: {one_line(error)}; the run goes on"
                warnings.warn(LatentDiffWarning(line), stacklevel=2)
            return {}

    def _tolerated(self, step: int) -> AbstractContextManager[None]:
        return tolerate_os_errors(f"writing what validation found at step {step}", lambda: "the run goes on")

    def _look(self, step: int, measured: Mapping[str, float]) -> dict[str, float]:
        """The values that there are, with those that were measured."""
        pictures = self.folder / PICTURES
        pictures.mkdir(exist_ok=True)
        return {**self._held_out(), **self.task.validate(pictures, step), **measured}

    def _note(self, step: int, values: Mapping[str, float]) -> None:
        """Write values to the log, and the weights to `best/` if they are the best so far."""
        try:
            if self.best.gains(values):
                (self.folder / BEST).mkdir(exist_ok=True)
                self.task.export(self.folder / BEST)
            self.best.add(values, step)
        finally:  # what was measured is known, whether or not the disk took the weights
            self.log.write(step, {f"validation/{name}": value for name, value in {**values, **self.best.facts}.items()})
            self.progress.say(f"validation at step {step}: {self._line(values)}")

    def _line(self, values: Mapping[str, float]) -> str:
        """What a terminal shows: the metrics, and what chooses the best weights."""
        metrics: list[str] = [] if self.task.measures is None else list(self.task.measures.names.values())
        shown: list[str] = [name for name in dict.fromkeys([*metrics, self.best.name]) if name in values]
        return ", ".join([*(f"{name} {values[name]:.4g}" for name in shown), *self.best.words])

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


def choose_by(measures: Measures | None, recipe: Recipe) -> Best:
    """What a run's validations are compared by: the recipe's choice, its first metric, or the loss.

    Raises:
        ConfigError: If it is a metric of the user's own that doesn't say whether higher is better.
    """
    options, keep = recipe.validation, recipe.checkpoint.keep_best
    chosen = options.best or next(iter(options.choices), LOSS)
    if measures is None or chosen == LOSS:
        return Best(stop_after=options.stop_after, keep=keep)
    return Best(measures.names[chosen], measures.higher_is_better(chosen), options.stop_after, keep=keep)
