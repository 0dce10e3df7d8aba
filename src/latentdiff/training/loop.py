"""THE training loop: one, for every stage, on accelerate."""

from __future__ import annotations

from contextlib import nullcontext
from pathlib import Path
from typing import Any

import torch
from accelerate import Accelerator
from accelerate.state import AcceleratorState
from torch.utils.data import Dataset
from tqdm.auto import tqdm

from latentdiff.data.stream import stream
from latentdiff.seeding import generator
from latentdiff.training import checkpoint
from latentdiff.training.batches import to_device
from latentdiff.training.ema import EMA
from latentdiff.training.log import Log
from latentdiff.training.optimizers import make_learning_rate, make_optimizer
from latentdiff.training.recipes import Recipe
from latentdiff.training.task import Task
from latentdiff.training.trackers import start_trackers, tracker_options
from latentdiff.training.validation import Validation


def make_accelerator(recipe: Recipe) -> Accelerator:
    """The process group, device and precision of a run."""
    # accelerate keeps the first run's precision for the life of the process; a second run may want another.
    AcceleratorState._reset_state()
    return Accelerator(
        cpu=not torch.accelerator.is_available(),  # unless told, processes on CPUs would not know of each other
        mixed_precision=recipe.mixed_precision,
        gradient_accumulation_steps=recipe.gradient_accumulation_steps,
        **tracker_options(recipe),
    )


def train(
    task: Task, items: Dataset[Any], recipe: Recipe, accelerator: Accelerator, held_out: Dataset[Any] | None = None
) -> Path:
    """Train `task` on `items` and export it to `recipe.output_dir`; validation has the loss of `held_out`.

    Returns:
        The folder of the final weights: EMA weights where EMA is on.

    Raises:
        LatentDiffError: If the loss stops being finite.
        CheckpointError: If the checkpoint to resume from can't be read.
    """
    output_dir = Path(recipe.output_dir)
    output_dir.mkdir(parents=True, exist_ok=True)
    optimizer = make_optimizer((p for p in task.parameters() if p.requires_grad), recipe)
    learning_rate = make_learning_rate(recipe, optimizer, accelerator.num_processes)
    task.to(accelerator.device)
    ema = EMA(task, recipe.ema_decay) if recipe.ema_decay else None
    resumed = checkpoint.resolve(output_dir, recipe.resume_from_checkpoint)
    first = checkpoint.load(resumed, task, ema, optimizer) if resumed else 0
    model, optimizer = accelerator.prepare(task, optimizer)
    micro_steps, rank, world = recipe.gradient_accumulation_steps, accelerator.process_index, accelerator.num_processes
    batches = stream(
        items,
        recipe.train_batch_size,
        seed=recipe.seed,
        first_step=first * micro_steps,
        rank=rank,
        world_size=world,
        num_workers=recipe.dataloader_num_workers,
    )
    log = Log(output_dir, recipe, accelerator)
    start_trackers(accelerator, recipe, first)
    validation = Validation(task, ema, held_out, recipe, log, first)
    progress = tqdm(range(first, recipe.max_train_steps), initial=first, total=recipe.max_train_steps, disable=rank > 0)
    for step in progress:
        task.step = step
        for group in optimizer.param_groups:
            group["lr"] = learning_rate(step)
        for micro_step in range(micro_steps):
            batch = to_device(next(batches), accelerator.device)
            with accelerator.accumulate(model):
                loss, values = model(batch, generator(recipe.seed, step * micro_steps + micro_step, rank))
                accelerator.backward(loss)
                if accelerator.sync_gradients:
                    accelerator.clip_grad_norm_(model.parameters(), recipe.max_grad_norm)
                optimizer.step()
                optimizer.zero_grad()
        if ema:
            ema.update()
        task.after_step(ema, generator(recipe.seed, step, world))  # no rank is called `world`: draws of its own
        log.add({"loss": loss.detach(), **values}, step + 1, learning_rate(step), progress)
        if recipe.validation_steps and (step + 1) % recipe.validation_steps == 0 and accelerator.is_main_process:
            validation(step + 1)
        if (step + 1) % recipe.checkpointing_steps == 0 and accelerator.is_main_process:
            checkpoint.save(output_dir, step + 1, task, ema, optimizer, recipe.checkpoints_total_limit)
    if accelerator.is_main_process:
        with ema.applied() if ema else nullcontext():
            task.export(output_dir)
    accelerator.end_training()
    return output_dir
