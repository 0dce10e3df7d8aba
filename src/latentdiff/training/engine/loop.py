"""THE training loop: one, for every stage, on accelerate."""

from __future__ import annotations

import signal
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Protocol

import torch
from accelerate import Accelerator
from torch import nn
from torch.utils.data import Dataset

from latentdiff.errors import TrainingInterrupted
from latentdiff.seeding import generator
from latentdiff.training.engine.ema import EMA
from latentdiff.training.engine.failures import Interrupts, explain_out_of_memory
from latentdiff.training.engine.gradient import GradientAccumulator
from latentdiff.training.engine.log import Log, StepProgress
from latentdiff.training.engine.optimizers import make_learning_rate, make_optimizer
from latentdiff.training.engine.options import Recipe
from latentdiff.training.engine.session import Session, agreed
from latentdiff.training.engine.sharding import check_sharding
from latentdiff.training.engine.state import State
from latentdiff.training.engine.task import Batch, Task, recompute_activations
from latentdiff.training.engine.trackers import end_trackers, silent_threads, start_trackers
from latentdiff.training.engine.validation import Validation, choose_by


class Run(Protocol):
    """A way to run a task on its data: `train`, or a rehearsal of it."""

    def __call__(
        self,
        task: Task[Batch],
        items: Dataset[Batch],
        recipe: Recipe,
        session: Session,
        held_out: Dataset[Batch] | None = None,
    ) -> Path:
        """Run, and return the folder of the results."""
        ...


def prepare(
    task: Task[Batch], recipe: Recipe, accelerator: Accelerator
) -> tuple[nn.Module, torch.optim.Optimizer, Callable[[int], float]]:
    """Put the task and its optimiser on the device and on all processes; the last result is the learning rate by step.

    Raises:
        ConfigError: If there is no such optimiser or schedule, or the processes aren't there for such a run.
    """
    check_sharding(accelerator, recipe)
    optimizer = make_optimizer((p for p in task.parameters() if p.requires_grad), recipe.optimizer)
    learning_rate = make_learning_rate(recipe, optimizer, accelerator.num_processes)
    if recipe.gradient_checkpointing:
        recompute_activations(task)
    model, optimizer = accelerator.prepare(task.to(accelerator.device), optimizer)
    return model, optimizer, learning_rate


def train(
    task: Task[Batch],
    items: Dataset[Batch],
    recipe: Recipe,
    session: Session,
    held_out: Dataset[Batch] | None = None,
) -> Path:
    """Train `task` on `items` and export it to `recipe.output_dir`; validation has the loss of `held_out`.

    A step whose loss or gradient isn't finite is skipped, by all processes alike. There is a checkpoint at the end.

    Returns:
        The folder of the final weights: EMA weights where EMA is on.

    Raises:
        LatentDiffError: If the loss stays not finite, or if there is too little memory.
        CheckpointError: If the checkpoint to resume from can't be read.
        ConfigError: If it was made with another recipe.
        TrainingInterrupted: After SIGTERM or Ctrl-C, when a checkpoint is written.
    """
    accelerator = session.accelerator
    model, optimizer, learning_rate = prepare(task, recipe, accelerator)
    ema = EMA(task, recipe.ema.decay, recipe.ema.profiles) if recipe.ema.decay else None
    log, best = Log(session), choose_by(task.measures, recipe.validation)
    state = State(task, ema, optimizer, log, recipe, accelerator, len(items), best)  # type: ignore[arg-type]
    if session.checkpoint is not None:
        state.load(session.checkpoint)
    steps = range(state.step, state.step if best.ends_run else recipe.max_train_steps)
    if task.measures is not None:
        task.measures.prepare()
    stop = False
    with (
        explain_out_of_memory(recipe),
        closing(GradientAccumulator(model, items, recipe, accelerator, state.step)) as gradient,
        Interrupts() as interrupts,
        silent_threads(),
    ):
        session.clear()  # all is checked, and the first batch is there
        agreed(accelerator, state.begin)
        start_trackers(accelerator, recipe, state.step)
        progress = StepProgress(steps, shown=accelerator.is_main_process)
        validation = Validation(task, ema, held_out, recipe, log, best, progress)
        for step in progress:
            task.step = step
            for group in optimizer.param_groups:
                group["lr"] = learning_rate(step)
            values = gradient(interrupts)
            stop, waited = values.pop("signal") > 0, values.pop("data_wait")
            finite = state.update(values)
            if finite:
                task.after_step(ema, generator(recipe.seed, step, 2))
            log.add(values if finite else None, state.step, learning_rate(step), progress, waited)
            state.check_progress()
            looks = recipe.validation.steps and state.step % recipe.validation.steps == 0
            if looks:
                validation(state.step)
            last = state.step == steps.stop or validation.ends_run
            if stop or last or state.step % recipe.checkpoint.steps == 0:
                state.save()
            state.keep(last)
            if stop:
                accelerator.wait_for_everyone()  # until the checkpoint is there
            if stop or validation.ends_run:
                break
        if best.ends_run and not stop:
            progress.say(best.why_it_ends(state.step))
    number = signal.Signals(interrupts.number or signal.SIGTERM) if stop else None
    if number is None:
        state.export()
    # What holds the process group has to go before it does: gloo's end waits for a thread that waits for Python's lock.
    del gradient, model
    accelerator.free_memory()
    end_trackers(accelerator)
    accelerator.end_training()
    if number is not None:
        raise TrainingInterrupted(f"{number.name} after step {state.step}; {state.last()}", number)
    return session.output_dir
