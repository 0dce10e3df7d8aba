"""The state of a training run, to a checkpoint and back."""

from __future__ import annotations

import json
import math
import warnings
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Generic

import torch
from accelerate import Accelerator
from safetensors.torch import save_file
from torch import nn

from latentdiff.errors import LatentDiffError, LatentDiffWarning
from latentdiff.training.engine import checkpoint
from latentdiff.training.engine.belongings import BEST, LOG, STEPS
from latentdiff.training.engine.best import LOSS, Best
from latentdiff.training.engine.checkpoint import AVERAGES_FILE, MOMENTS_FILE, NUMBERS_FILE, WEIGHTS_FILE
from latentdiff.training.engine.ema import EMA, PROFILE
from latentdiff.training.engine.ema_snapshots import forget_after, write_snapshot
from latentdiff.training.engine.failures import tolerate_os_errors
from latentdiff.training.engine.log import Log, lowest
from latentdiff.training.engine.optimizers import averaged
from latentdiff.training.engine.options import Recipe
from latentdiff.training.engine.resume_check import check_same, identity
from latentdiff.training.engine.saved import check_weights, explained, fitting_moments, read_checkpoint
from latentdiff.training.engine.sharding import (
    load_optimizer_state,
    local,
    sharded_like,
    unsharded,
    whole,
    whole_optimizer_state,
)
from latentdiff.training.engine.task import Batch, Task
from latentdiff.types import JSON

REMEDY = "with a lower optimizer.learning_rate or mixed_precision 'no'"


@dataclass
class State(Generic[Batch]):
    """The state of a run, which a checkpoint holds.

    Attributes:
        task: What is trained, prepared by `accelerator` as the optimiser is.
        ema: The averaged weights, if EMA is on.
        optimizer: The task's optimiser.
        log: The log, which has a line that is not full yet.
        recipe: The run's recipe.
        accelerator: The run's processes and precision.
        items: The number of items in the data set.
        best: The best validation so far.
        step: The number of steps that were made or skipped.
        skipped: The number of the last of them that were skipped in a row.
    """

    task: Task[Batch]
    ema: EMA | None
    optimizer: torch.optim.Optimizer
    log: Log
    recipe: Recipe
    accelerator: Accelerator
    items: int
    best: Best = field(default_factory=Best)
    step: int = 0
    skipped: int = 0

    @property
    def output_dir(self) -> Path:
        """The folder of the checkpoints."""
        return Path(self.recipe.output_dir)

    def update(self, values: Mapping[str, float]) -> bool:
        """Make the step whose gradient is there, or skip it and return False if it or the loss isn't finite."""
        self.step += 1
        finite = math.isfinite(values["loss"]) and math.isfinite(values["grad_norm"])
        self.skipped = 0 if finite else self.skipped + 1
        if finite:
            self.optimizer.step()
            if self.ema:
                self.ema.update()
        elif self.accelerator.scaler:
            self.accelerator.scaler.update()  # lowers fp16's scale, which is most often what was wrong
        self.optimizer.zero_grad()
        return finite

    def check_progress(self) -> None:
        """Raise LatentDiffError when too many steps in a row were skipped."""
        if self.skipped == self.recipe.max_skipped_steps:
            raise LatentDiffError(
                f"loss or gradient was not finite in {self.skipped} steps in a row, up to step {self.step}; "
                f"{self.last()}, {REMEDY}"
            )

    def is_finite(self) -> bool:
        """Whether no weight is infinite or not a number; all processes have to ask."""
        wrong = torch.stack([~local(p.detach()).isfinite().all() for p in self.task.parameters()]).any()
        return not float(self.accelerator.reduce(wrong.float(), "sum"))

    def load(self, folder: Path) -> None:
        """Go on from a checkpoint.

        Raises:
            CheckpointError: If it can't be read.
            ConfigError: If it was made with another recipe.
        """
        saved = read_checkpoint(folder)
        check_same(folder, saved.numbers.recipe, self._identity(), self.recipe)
        own = self.task.state_dict()
        with explained(folder):
            check_weights(WEIGHTS_FILE, saved.weights, own)
            if self.ema:
                check_weights(AVERAGES_FILE, saved.averages, self.ema.shadow)
            moments = fitting_moments(saved.moments, self.optimizer, self._trained(), self.recipe.optimizer)
        self.task.load_state_dict({name: sharded_like(tensor, own[name]) for name, tensor in saved.weights.items()})
        if self.ema:
            self.ema.load(saved.averages, saved.numbers.ema_updates)
        load_optimizer_state(self.accelerator, self.optimizer, self._trained(), moments)
        if self.accelerator.scaler and saved.numbers.scaler:
            self.accelerator.scaler.load_state_dict(saved.numbers.scaler)
        self.step = saved.numbers.step
        self.log.load(saved.numbers.log.model_dump())
        self.best.load(saved.numbers.best)
        if saved.numbers.best is None and self.best.name == LOSS:  # it is older than `Best`, and left this to the log
            self.best.value, self.best.step = lowest(folder.parent / LOG, "validation/loss", self.step) or (None, 0)
        if self.best.value is not None and self.recipe.validation.steps and not (folder.parent / BEST).exists():
            line = (
                f"{folder.parent / BEST} is gone, which was of step {self.best.step}; the next validation is the best"
            )
            if self.accelerator.is_main_process:
                warnings.warn(LatentDiffWarning(line), stacklevel=2)
            self.best.forget()
        there = {checkpoint.step_of(path) for path in checkpoint.existing(folder.parent)}
        self.best.kept = {step: value for step, value in self.best.kept.items() if step in there}

    def save(self) -> None:
        """Write `checkpoint-STEP`; where the disk doesn't allow it, a warning says so and the last one stays.

        Nothing is written while steps are skipped, nor of weights that aren't finite. All processes have to call it.
        """
        if self.skipped or not self.is_finite():
            return
        main = self.accelerator.is_main_process
        weights = whole(self.task.state_dict(), main)
        moments = whole_optimizer_state(self.accelerator, self.optimizer, self._trained(), main)
        shadow = whole(self.ema.shadow if self.ema else {}, main)
        if not main:
            return
        with (
            tolerate_os_errors(f"saving checkpoint-{self.step}", self.last),
            checkpoint.written(
                self.output_dir, self.step, self.recipe.checkpoint.total_limit, self.best.kept
            ) as folder,
        ):
            save_file({name: tensor.contiguous() for name, tensor in weights.items()}, folder / WEIGHTS_FILE)
            save_file(shadow, folder / AVERAGES_FILE)
            with open(folder / MOMENTS_FILE, "wb") as file:  # given a path, torch doesn't say why it can't
                torch.save(moments, file)
            (folder / NUMBERS_FILE).write_text(json.dumps(self._numbers(), indent=1))

    def begin(self) -> None:
        """Take away what the log and `ema/` have of steps that are made again."""
        self.log.begin(self.step)
        forget_after(self.output_dir, self.step)

    def keep(self, last: bool) -> None:
        """Write what the recipe wants to be kept of this step beside checkpoints; all processes have to call it."""
        every = self.recipe.ema.snapshot_steps
        if every is not None and (last or self.step % every == 0) and not self.skipped:
            self._write_averages()
        if self.step in self.recipe.checkpoint.export_steps and not self.skipped:
            self._keep_weights()

    def _write_averages(self) -> None:
        """Write the power-function averages as `ema/step-STEP.safetensors`."""
        assert self.ema is not None
        options, main = self.recipe.ema, self.accelerator.is_main_process
        profiles = whole({name: tensor for name, tensor in self.ema.shadow.items() if PROFILE in name}, main)
        if main:
            with tolerate_os_errors(f"storing the averages of step {self.step}", lambda: "the run goes on"):
                dtype = getattr(torch, options.snapshot_dtype)
                write_snapshot(self.output_dir, self.step, self.ema.num_updates, profiles, dtype)

    def _keep_weights(self) -> None:
        """Write the weights as `steps/STEP`, averaged where EMA is on; all processes have to call it."""
        main = self.accelerator.is_main_process
        with averaged(self.ema, self.optimizer), unsharded(self.task, main):
            if main:
                with tolerate_os_errors(f"keeping the weights of step {self.step}", lambda: "the run goes on"):
                    folder = self.output_dir / STEPS / str(self.step)
                    folder.mkdir(parents=True, exist_ok=True)
                    self.task.export(folder)

    def export(self) -> None:
        """Write the weights that the run ends with, averaged where EMA is on.

        Raises:
            LatentDiffError: If they aren't finite, or if no step could be made.
        """
        if not self.is_finite():
            raise LatentDiffError(f"the last step made weights that are not finite; {self.last()}, {REMEDY}")
        if self.skipped and self.skipped == self.step:
            raise LatentDiffError(f"no step had a finite loss and gradient, so nothing was learned; train {REMEDY}")
        if self.skipped:
            line = f"the last {self.skipped} steps were skipped as not finite; look at the results with care"
            warnings.warn(LatentDiffWarning(line), stacklevel=2)
        main = self.accelerator.is_main_process
        with averaged(self.ema, self.optimizer), unsharded(self.task, main):
            if main:
                self.task.export(self.output_dir)

    def last(self) -> str:
        """A line on where a run can go on."""
        steps = [checkpoint.step_of(path) for path in checkpoint.existing(self.output_dir)]
        mine = [step for step in steps if step <= self.step]
        if not mine:
            return "there is no checkpoint yet"
        name = f"{checkpoint.PREFIX}{mine[-1]}"
        return f"go on from {name} by --resume_from_checkpoint {'latest' if mine == steps else name}"

    def _trained(self) -> list[nn.Parameter]:
        return [parameter for parameter in self.task.parameters() if parameter.requires_grad]

    def _numbers(self) -> JSON:
        scaler = self.accelerator.scaler
        return {
            "step": self.step,
            "ema_updates": self.ema.num_updates if self.ema else 0,
            "scaler": scaler.state_dict() if scaler else {},
            "log": self.log.state(),
            "best": self.best.state(),
            "recipe": self._identity(),
        }

    def _identity(self) -> dict[str, object]:
        return {**identity(self.recipe, self.log.images, self.items), **self.task.identity()}
