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

from latentdiff.errors import TimeLimitReached, TrainingInterrupted
from latentdiff.seeding import generator
from latentdiff.training.engine.ema import EMA
from latentdiff.training.engine.failures import WISHES, Interrupts, explain_out_of_memory
from latentdiff.training.engine.gradient import GradientAccumulator
from latentdiff.training.engine.log import Log, StepProgress
from latentdiff.training.engine.optimizers import averages_itself, make_learning_rate, make_optimizer
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
    if averages_itself(optimizer):
        optimizer.train()
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
        TimeLimitReached: After `max_hours`, likewise.
    """
    accelerator = session.accelerator
    model, optimizer, learning_rate = prepare(task, recipe, accelerator)
    ema = EMA(task, recipe.ema.decay) if recipe.ema.decay else None
    log, best = Log(session), choose_by(task.measures, recipe)
    state = State(task, ema, optimizer, log, recipe, accelerator, len(items), best)  # type: ignore[arg-type]
    if session.checkpoint is not None:
        state.load(session.checkpoint)
    steps = range(state.step, state.step if best.ends_run else recipe.max_train_steps)
    if task.measures is not None:
        task.measures.prepare()
    interruption: TrainingInterrupted | None = None
    with (
        explain_out_of_memory(recipe),
        closing(GradientAccumulator(model, items, recipe, accelerator, state.step)) as gradient,
        Interrupts(session.deadline) as interrupts,
        silent_threads(),
    ):
        session.clear()  # all is checked, and the first batch is there
        agreed(accelerator, lambda: log.begin(state.step))
        start_trackers(accelerator, recipe, state.step)
        progress = StepProgress(steps, shown=accelerator.is_main_process)
        validation = Validation(task, ema, optimizer, held_out, recipe, log, best, progress)
        for step in progress:
            task.step = step
            for group in optimizer.param_groups:
                group["lr"] = learning_rate(step)
            values = gradient(interrupts)
            wishes, waited = {wish: values.pop(wish) > 0 for wish in WISHES}, values.pop("data_wait")
            finite = state.update(values)
            if finite:
                task.after_step(ema, generator(recipe.seed, step, 2))
            log.add(values if finite else None, state.step, learning_rate(step), progress, waited)
            state.check_progress()
            validation.if_due(state.step)
            last = state.step == steps.stop or validation.ends_run
            stops = wishes["stop"] or (wishes["time_is_up"] and not last)
            asked = wishes["save"] or validation.among_best
            if stops or last or asked or state.step % recipe.checkpoint.steps == 0:
                state.save()
            if wishes["save"] and not stops:
                progress.say(f"a checkpoint was asked for at step {state.step}; the run goes on")
            if stops:
                accelerator.wait_for_everyone()  # until the checkpoint is there
                interruption = _interruption(wishes["stop"], interrupts.number, recipe, state.step, state.last())
            if stops or validation.ends_run:
                break
        if best.ends_run and interruption is None:
            progress.say(best.why_it_ends(state.step))
    if interruption is None:
        state.export()
    # What holds the process group has to go before it does: gloo's end waits for a thread that waits for Python's lock.
    del gradient, model
    accelerator.free_memory()
    end_trackers(accelerator)
    accelerator.end_training()
    if interruption is not None:
        raise interruption
    return session.output_dir


def _interruption(stopped: bool, number: int, recipe: Recipe, step: int, last: str) -> TrainingInterrupted:
    """What a run ends with that is asked to stop, by the signal of this process or another's, or has no more time."""
    if not stopped:
        return TimeLimitReached(f"max_hours {recipe.max_hours} are over after step {step}; {last}")
    name = signal.Signals(number or signal.SIGTERM)
    return TrainingInterrupted(f"{name.name} after step {step}; {last}", name)
